"""The client of a platform's interface: blocking, over its Unix socket, in the standard library alone.

Every command imports it, so it imports little. A call has a deadline for each wait on the socket; a stream waits
for its next line without one, since nothing may happen for hours.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from upwell.functions.errors import InvalidInput, Unavailable
from upwell.runtime.api.place import data_path, short_path
from upwell.runtime.api.shapes import PREFIX, SOCKET, SYNCED, Outcome, PlatformInfo, error_from_json

TIMEOUT_SECONDS: Final = 60.0
"""For one answer."""
APPLY_SECONDS: Final = 300.0
"""For that to a batch, whose sources are copied meanwhile: the largest may have 64 MiB each."""
CONNECT_ATTEMPTS: Final = 100
CONNECT_PAUSE_SECONDS: Final = 0.05
"""A socket with a full backlog refuses at once what would soon be taken."""
CUT_OFF: Final = "the platform ended the connection"
LEAST_SECONDS: Final = 0.001
"""0 would mean not to wait at all, which is another error."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with short_path(self._path) as path:
            for _ in range(CONNECT_ATTEMPTS - 1):
                with contextlib.suppress(BlockingIOError):
                    self.sock.connect(path)
                    return
                time.sleep(CONNECT_PAUSE_SECONDS)
            self.sock.connect(path)


class Client:
    """Talks to the platform whose state is in `directory`. Each call takes a connection of its own.

    Every call, and a stream at its first line, raises Unavailable when no platform runs there, and otherwise the
    error that the platform told.
    """

    def __init__(self, directory: Path, timeout: float = TIMEOUT_SECONDS) -> None:
        self.directory = directory
        self.socket = directory / SOCKET
        self._timeout = timeout

    def platform(self) -> PlatformInfo:
        """Which platform it is."""
        return PlatformInfo.from_json(self._ask("GET", "/platform"))

    def apply(
        self,
        manifests: Sequence[Mapping[str, Any]],
        *,
        images: Mapping[str, str] | None = None,
        dry_run: bool = False,
    ) -> list[Outcome]:
        """Apply all or none. `images` maps an image's name to the JSON of `{"path": …}` or of
        `{"command": …, "directory": …}`.

        Raises RefusedBatch with the fields at fault.
        """
        body = {"manifests": manifests, "images": images or {}, "dry_run": dry_run}
        answer = self._ask("POST", "/apply", body, timeout=APPLY_SECONDS)
        return [Outcome.from_json(each) for each in answer["applied"]]

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """One object. Raises NotFound."""
        return self._ask("GET", _object(kind, name), query=_query(namespace=namespace))

    def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """The objects of a kind, in one namespace or in all, that carry all of `labels`."""
        query = [*_query(namespace=namespace), *(("label", f"{k}={v}") for k, v in (labels or {}).items())]
        *found, last = [*self._stream(f"/objects/{quote(kind)}", query, None)] or [{}]
        if last != SYNCED:
            raise Unavailable(CUT_OFF, where=str(self.socket))
        return [line["object"] for line in found]

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Remove the object and what belongs to it. Raises NotFound."""
        self._ask("DELETE", _object(kind, name), query=_query(namespace=namespace))

    def replicas(self, namespace: str, revision: str) -> Sequence[dict[str, Any]]:
        """The replicas of a revision that are not gone, as `ReplicaInfo` has them."""
        found: list[dict[str, Any]] = self._ask("GET", f"/replicas/{_quoted(namespace)}/{_quoted(revision)}")[
            "items"
        ]
        return found

    def explain(
        self, namespace: str, name: str, *, kind: str | None = None, since: float | None = None
    ) -> dict[str, Any]:
        """Why the revisions of a Service, or a Revision, stand where they do, as the JSON of `Explained`; of what
        was decided in the last `since` seconds.

        `kind` is the type of one of both; without it a Service comes first. Raises NotFound.
        """
        return self._ask(
            "GET", f"/explain/{_quoted(namespace)}/{_quoted(name)}", query=_query(kind=kind, since=since)
        )

    def topology(self) -> Sequence[dict[str, Any]]:
        """What the gateway has counted up to now, and where its policies act: the lines of a `Snapshot`."""
        *lines, last = [*self._stream("/topology", (), None)] or [{}]
        if last != SYNCED:
            raise Unavailable(CUT_OFF, where=str(self.socket))
        return lines

    def watch(
        self,
        kind: str,
        namespace: str | None = None,
        name: str | None = None,
        *,
        remaining: Callable[[], float] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """What is there as `{"object": …}`, then `{"synced": true}`, then changes; one that is gone comes as
        `{"deleted": {"kind": …, "namespace": …, "name": …}}`. Ends with the platform.

        Raises TimeoutError when no line has come in the seconds that `remaining` says there are.
        """
        query = _query(namespace=namespace, name=name)
        return self._stream(f"/watch/{quote(kind)}", query, remaining)

    def logs(
        self,
        namespace: str,
        service: str,
        *,
        revision: str | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """The lines that the revisions of a Service printed, as `{"revision": …, "line": …}`."""
        query = _query(revision=revision, tail=tail, follow="true" if follow else None)
        return self._stream(f"/logs/{_quoted(namespace)}/{_quoted(service)}", query, None)

    def _ask(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Sequence[tuple[str, str]] = (),
        timeout: float | None = None,
    ) -> dict[str, Any]:
        timeout = timeout or self._timeout
        connection = _UnixConnection(self.socket, timeout)
        try:
            answer: dict[str, Any] = json.loads(self._send(connection, method, path, body, query).read())
            return answer
        except TimeoutError as error:
            message = f"the platform did not answer within {timeout:g} s"
            raise Unavailable(message, where=str(self.socket)) from error
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise Unavailable(CUT_OFF, where=str(self.socket)) from error
        finally:
            connection.close()

    def _stream(
        self, path: str, query: Sequence[tuple[str, str]], remaining: Callable[[], float] | None
    ) -> Iterator[dict[str, Any]]:
        connection = _UnixConnection(self.socket, self._timeout)
        try:
            answer = self._send(connection, "GET", path, None, query)
            while True:
                connection.sock.settimeout(None if remaining is None else max(LEAST_SECONDS, remaining()))
                if not (line := answer.readline()):
                    return
                yield json.loads(line)
        except TimeoutError:
            raise
        except (http.client.HTTPException, OSError, ValueError):
            return  # the platform ended, in the middle of a line
        finally:
            connection.close()

    def _send(
        self,
        connection: _UnixConnection,
        method: str,
        path: str,
        body: object,
        query: Sequence[tuple[str, str]],
    ) -> http.client.HTTPResponse:
        self._connect(connection)
        target = f"{PREFIX}{path}?{_encoded(query)}" if query else f"{PREFIX}{path}"
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        connection.request(method, target, body=data, headers=headers)
        answer = connection.getresponse()
        if answer.status >= 400:
            raise error_from_json(_json_or_none(answer.read()), answer.status)
        return answer

    def _connect(self, connection: _UnixConnection) -> None:
        try:
            connection.connect()
        except BlockingIOError as error:
            raise Unavailable("the platform takes no connection", where=str(self.socket)) from error
        except PermissionError as error:
            raise Unavailable("the platform belongs to another user", where=str(self.socket)) from error
        except OSError as error:
            command = "upwell up"
            if self.directory != data_path(None, os.environ):
                command += f" --data {self.directory}"
            hint = f"Start it with `{command}`."
            raise Unavailable("no platform is running", where=str(self.socket), hint=hint) from error


def _object(kind: str, name: str) -> str:
    return f"/objects/{quote(kind)}/{_quoted(name)}"


def _quoted(text: str) -> str:
    """As a part of a path. Raises InvalidInput for an argument whose bytes are no text."""
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise InvalidInput("not UTF-8 text", where=text) from error


def _encoded(query: Sequence[tuple[str, str]]) -> str:
    try:
        return urlencode(query)
    except UnicodeEncodeError as error:
        raise InvalidInput("not UTF-8 text", where=error.object) from error


def _query(**given: object) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in given.items() if value is not None]


def _json_or_none(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None
