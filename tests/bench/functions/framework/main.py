"""The function of functions-framework's own README; runs in an environment of its own, without upwell."""

import flask
import functions_framework  # type: ignore[import-not-found]  # installed where it runs


@functions_framework.http  # type: ignore[untyped-decorator]  # unknown here
def hello(request: flask.Request) -> str:
    """Say hello to every request."""
    return "Hello, World!\n"
