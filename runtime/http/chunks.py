"""The chunked transfer coding (RFC 9112 section 7), read strictly and written plainly.

Chunk sizes are hexadecimal digits alone, extensions are read over within a small bound, every line ends in CRLF.
Real peers send nothing else, and each leniency here has been a way to smuggle a request past a proxy.
"""

from __future__ import annotations

import re
from typing import cast

from upwell.runtime.http.messages import Headers

# Sixteen digits would be a chunk of exabytes. Extensions: printable, no control characters, no bare CR or LF.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_MAX_SIZE_LINE = 256

LARGE = 16_384
"""Bytes from which on a copy costs more than a further piece."""

_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")


class MalformedChunks(Exception):
    """The coding was broken; what was decoded so far is all there is."""


class ChunkedReader:
    """Decodes one chunked body, however it is split."""

    __slots__ = ("_after_data", "_in_trailers", "_left", "_limit", "_max_trailers", "ended", "trailers")

    def __init__(self, max_trailer_bytes: int, max_trailers: int) -> None:
        self._left = 0
        self._after_data = False
        self._in_trailers = False
        self._limit = max_trailer_bytes
        self._max_trailers = max_trailers
        self.ended = False
        self.trailers: Headers = []

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Decoded bytes, and what is left of `data`: the start of a line, or all after the message's end.

        The left-over is to be given again in front of what comes next. Raises MalformedChunks.
        """
        parts, rest = self.decode_parts(data)
        return (bytes(parts[0]) if len(parts) == 1 else b"".join(parts)), rest

    def decode_parts(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The same with the decoded bytes as they lie in their chunks.

        Those of large `data` are views of it, good for being written, measured and joined.
        """
        parts: list[bytes] = []
        position = 0
        small = len(data) < LARGE
        # What is large is not copied out: allocating for it costs more than all the rest.
        whole = data if small else cast(bytes, memoryview(data))
        while not self.ended:
            if self._left:
                part = whole[position : position + self._left]
                if not part:
                    break
                parts.append(part)
                position += len(part)
                self._left -= len(part)
                self._after_data = self._left == 0
                continue
            line_end = self._line(data, position)
            if line_end < 0:
                break
            self._take_line(data[position:line_end])
            position = line_end + 2
        if len(parts) > 1 and small:
            parts = [b"".join(parts)]
        return parts, data[position:]

    def _line(self, data: bytes, position: int) -> int:
        """Where the line that starts at `position` ends, or -1 while its end is not there."""
        if self._after_data:
            start = data[position : position + 2]
            if not b"\r\n".startswith(start):
                raise MalformedChunks("chunk data longer than its size")
            return position if len(start) == 2 else -1
        limit = self._limit if self._in_trailers else _MAX_SIZE_LINE
        end = data.find(b"\r\n", position, position + limit + 2)
        if end < 0:
            if len(data) - position > limit:
                raise MalformedChunks("chunk line too long")
            line = data[position:]
            if b"\n" in line or b"\r" in line[:-1]:
                raise MalformedChunks("chunk line without a proper end")
        return end

    def _take_line(self, line: bytes) -> None:
        if self._after_data:
            self._after_data = False
        elif self._in_trailers:
            self._take_trailer(line)
        else:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise MalformedChunks("malformed chunk size")
            self._left = int(match[1], 16)
            self._in_trailers = self._left == 0

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.ended = True
            return
        match = _TRAILER.fullmatch(line)
        self._limit -= len(line)
        if match is None or self._limit < 0 or len(self.trailers) >= self._max_trailers:
            raise MalformedChunks("malformed trailer")
        self.trailers.append((match[1].lower(), match[2].rstrip(b" \t")))


def chunk_lines(data: bytes) -> tuple[bytes, bytes, bytes]:
    """One chunk as pieces to be written one after another, of which the large one is not copied."""
    return b"%x\r\n" % len(data), data, b"\r\n"


def encode_chunk(data: bytes) -> bytes:
    """One chunk; `data` may not be empty, since an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
