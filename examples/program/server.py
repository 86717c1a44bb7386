"""A program that knows nothing of upwell: it listens on $PORT, and ends in good order when it is told to."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{os.environ.get('GREETING', 'Hello')} from {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def stop(number: int, frame: object) -> None:
    sys.stderr.write("told to end\n")
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    port = int(os.environ["PORT"])
    sys.stderr.write(f"listening on {port}\n")
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
