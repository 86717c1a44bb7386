"""Upwell: Python functions that rise from zero."""

__version__ = "0.1.0"
