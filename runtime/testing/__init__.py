"""Fakes and conformance suites as products: supported, documented, and used by upwell's own tests.

`loop` is an event loop whose time jumps ahead when all wait; `clock` reads a time that a test moves. Nothing
here is imported by what runs in production, and importing one module imports no other.
"""
