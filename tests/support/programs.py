"""Programs to be replicas of: each is a Python script of its own, as a user's would be."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.host import Host, Running
from upwell.runtime.host.launcher import ProgramSource

SERVER = """
    import http.server, os, signal, sys, time

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            status, body = answer(self)
            body = body.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *arguments):
            pass

    def answer(request):
        return 200, "hello"

    def serve():
        address = ("127.0.0.1", int(os.environ["PORT"]))
        http.server.ThreadingHTTPServer.daemon_threads = True
        http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""
"""What answers each GET with `answer(request)`; a test's text may define it anew, and calls `serve` at its end."""


def program(folder: Path, text: str = "", *, name: str = "server.py", **fields: Any) -> ProgramSource:
    """A Python program of SERVER and `text`, which serves when `text` says nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(textwrap.dedent(SERVER) + textwrap.dedent(text) + "\nserve()\n")
    return command([sys.executable, str(file)], folder, **fields)


def command(words: Sequence[str], folder: Path, **fields: Any) -> ProgramSource:
    """A program that is a command; its output goes to `output.log` in `folder`."""
    source = ProgramSource("default/program-00001", tuple(words), directory=folder, log=folder / "output.log")
    return replace(source, **fields)


async def serving(host: Host, source: ProgramSource) -> Running:
    """A replica of it that is ready."""
    running = host.start(host.launcher.load(source))
    await running.recorder.became_ready()
    return running
