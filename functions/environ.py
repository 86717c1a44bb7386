"""The WSGI environment (PEP 3333) of a request that came as an ASGI scope.

WSGI's strings are bytes read as latin-1: the path is taken from the undecoded one, so that escapes which are no
UTF-8 reach the application as they were sent.
"""

from __future__ import annotations

import sys
import urllib.parse
from collections.abc import Iterable
from typing import Any, BinaryIO
from wsgiref.util import FileWrapper

from upwell.functions.asgi import Scope

Environ = dict[str, Any]


def build_environ(scope: Scope, body: BinaryIO) -> Environ:
    """The environment of one HTTP request whose body is read from `body`, up to its end."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    raw_path = scope.get("raw_path") or urllib.parse.quote(scope["path"]).encode()
    query = scope.get("query_string", b"").decode("latin-1")
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "QUERY_STRING": query,
        "REQUEST_URI": raw_path.decode("latin-1") + (f"?{query}" if query else ""),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    environ["SCRIPT_NAME"], environ["PATH_INFO"] = _paths(scope, raw_path)
    _add_headers(environ, headers)
    environ["SERVER_NAME"], environ["SERVER_PORT"] = _server(scope, environ.get("HTTP_HOST", ""))
    if client := scope.get("client"):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client[0], str(client[1])
    return environ


def _paths(scope: Scope, raw_path: bytes) -> tuple[str, str]:
    root = scope.get("root_path", "").rstrip("/").encode().decode("latin-1")
    path = urllib.parse.unquote_to_bytes(raw_path).decode("latin-1")
    if root and (path == root or path.startswith(f"{root}/")):
        return root, path[len(root) :]
    return root, path


def _add_headers(environ: Environ, headers: Iterable[tuple[bytes, bytes]]) -> None:
    for raw_name, raw_value in headers:
        if b"_" in raw_name:
            continue  # it would pass for the header that has '-' there, which a proxy may have checked
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        if key in environ:
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
        environ[key] = value


def _server(scope: Scope, host: str) -> tuple[str, str]:
    """Name and port: the listener's; where that is a Unix socket, what the client called it."""
    address = scope.get("server")
    if address and address[1] is not None:
        return address[0], str(address[1])
    try:
        parts = urllib.parse.urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    return name or "localhost", str(port or (443 if scope.get("scheme") == "https" else 80))
