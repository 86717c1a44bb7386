"""Fakes and conformance suites as products: supported, documented, and used by upwell's own tests.

`loop` is an event loop whose time jumps ahead when all wait; `clock` reads a time that a test moves; `launcher` is
a host without processes; `object_store` holds any store to the rules of all. Nothing here is imported by what runs
in production, and importing one module imports no other.
"""
