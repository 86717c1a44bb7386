"""What was said on a connection, taken apart so that two recordings can be compared."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One answer: fields by lower-case name, sorted, without Date; the body decoded. `whole` is False when it
    broke off."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool = True


def methods_of(raw: bytes) -> list[str]:
    """The methods of the requests in what a client sent."""
    return re.findall(r"(?:^|\n)([A-Z]+) [^\r\n]+ HTTP/1\.[01]\r\n", raw.decode("latin-1"))


def answers_in(raw: bytes, methods: list[str]) -> list[Answer]:
    """The answers, informational ones too. After 101 comes no HTTP."""
    found: list[Answer] = []
    waiting = [*methods, *["GET"] * 100]
    while raw:
        head, end, raw = raw.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        status = int(line.split(" ")[1])
        pairs = [
            (name.strip().lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines)
        ]
        fields = tuple(sorted(pair for pair in pairs if pair[0] != "date"))
        if status == 101:
            return [*found, Answer(status, fields, b"")]
        if status < 200:
            found.append(Answer(status, fields, b""))
            continue
        body, raw, whole = _body(status, waiting.pop(0), dict(fields), raw)
        found.append(Answer(status, fields, body, whole and bool(end)))
    return found


def _body(status: int, method: str, fields: dict[str, str], raw: bytes) -> tuple[bytes, bytes, bool]:
    if method == "HEAD" or status in (204, 304):
        return b"", raw, True
    if "chunked" in fields.get("transfer-encoding", ""):
        return decode_chunks(raw)
    if "content-length" in fields:
        length = int(fields["content-length"])
        return raw[:length], raw[length:], len(raw) >= length
    return raw, b"", True


def decode_chunks(raw: bytes) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it came to its end."""
    body = b""
    while True:
        line, end, rest = raw.partition(b"\r\n")
        if not end:
            return body, b"", False
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            _, end, rest = rest.partition(b"\r\n") if rest.startswith(b"\r\n") else rest.partition(b"\r\n\r\n")
            return body, rest, bool(end)
        body += rest[:size]
        if len(rest) < size + 2:
            return body, b"", False
        raw = rest[size + 2 :]
