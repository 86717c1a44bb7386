"""The page that Knative's autoscaler scrapes of each pod: one `Stat` message of protocol buffers.

The message has six fields and is written and read here by hand, which is less than what a library would cost. Of
its fields those that are zero are left out, as version 3 of the language has it.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import Final

from upwell.autoscaler.stats import RequestStats
from upwell.functions.errors import InvalidInput

PROTOBUF: Final = b"application/protobuf"
REPORT_SECONDS: Final = 1.0

_DOUBLE: Final = 1
_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Stat:
    """What one pod saw in its last second; fields in the order of their numbers, which start at 1."""

    pod_name: str = ""
    average_concurrent_requests: float = 0.0
    average_proxied_concurrent_requests: float = 0.0
    request_count: float = 0.0
    proxied_request_count: float = 0.0
    process_uptime: float = 0.0

    def encode(self) -> bytes:
        """The message."""
        name, *numbers = astuple(self)
        text = name.encode()
        parts = [bytes([1 << 3 | _BYTES]) + _varint(len(text)) + text] if text else []
        for number, value in enumerate(numbers, start=2):
            if value:
                parts.append(struct.pack("<Bd", number << 3 | _DOUBLE, value))
        return b"".join(parts)

    @classmethod
    def decode(cls, message: bytes) -> Stat:
        """The inverse; raises InvalidInput for anything that `encode` cannot have written."""
        name = ""
        numbers = [0.0] * 5
        position = 0
        try:
            while position < len(message):
                field, kind = message[position] >> 3, message[position] & 7
                if field == 1 and kind == _BYTES:
                    length, start = _read_varint(message, position + 1)
                    position = start + length
                    if position > len(message):
                        raise ValueError("a name that breaks off")
                    name = message[start:position].decode()
                elif 2 <= field <= 6 and kind == _DOUBLE:
                    (numbers[field - 2],) = struct.unpack_from("<d", message, position + 1)
                    position += 9
                else:
                    raise ValueError("an unknown field")
        except (ValueError, IndexError, struct.error) as error:
            raise InvalidInput("what a pod reports is no Stat", hint=str(error)) from error
        return cls(name, *numbers)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[position]
        number |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return number, position


class StatReporter:
    """Keeps the Stat of the last second; `report` is to be called once in each."""

    def __init__(self, pod: str, stats: RequestStats, started: float) -> None:
        self.stat = Stat(pod)
        self._stats = stats
        self._started = started

    def report(self, now: float, monotonic: float) -> None:
        """Form the Stat of the time since the last one."""
        averages = self._stats.report(now)
        self.stat = Stat(
            self.stat.pod_name,
            averages.average_concurrency,
            averages.average_proxied_concurrency,
            averages.request_count / REPORT_SECONDS,
            averages.proxied_request_count / REPORT_SECONDS,
            monotonic - self._started,
        )
