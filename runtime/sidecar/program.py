"""A user's program as the sidecar's child: started on a free port, watched, and ended with all that it started.

It leads a session and process group of its own. Where the kernel can, it ends with the sidecar however that ends.
The port is chosen outside the range from which connections get theirs, by binding it for a moment, and kept from
other programs of ours by a name: one that took it meanwhile would be sent our requests. Should any other process
take it, the program fails to listen and is to be started again on another port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upwell.runtime.sidecar.expansion import expand

PORTS: Final = range(20_000, 32_000)
"""Below what Linux (32768) and macOS (49152) give to outgoing connections."""
PORT_ATTEMPTS: Final = 64
GROUP_POLL_SECONDS: Final = 0.02
LEFT_OVER_SECONDS: Final = 2.0
"""For processes of its group that outlive the program, between SIGTERM and SIGKILL."""
TAIL_BYTES: Final = 4096
TAIL_LINES: Final = 10
TAIL_LINE_LENGTH: Final = 300


class CannotStart(Exception):
    """The command cannot be run; its text says why, `hint` what may help."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit code, or the signal that ended it."""

    code: int | None
    signal: int | None

    @classmethod
    def of(cls, returncode: int) -> Ended:
        """From a return code, which is negative for a signal."""
        return cls(None, -returncode) if returncode < 0 else cls(returncode, None)

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with code {self.code}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:
            name = f"signal {self.signal}"
        return f"was killed by {name}"

    @property
    def cause(self) -> str:
        """As Knative names it in a condition: shells count signals from 128."""
        return f"ExitCode{self.code if self.signal is None else 128 + self.signal}"


class Program:
    """One run of the program."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: Path | None,
        log: Path | None,
        *,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """`prepare` is called in the child before the program takes its place."""
        self.port, self._reservation = reserve_port()
        self.environment = {**environment, "PORT": str(self.port)}
        self.command = tuple(expand(word, self.environment) for word in command)
        self._directory = directory
        self._log = log
        self._log_size = 0
        self._prepare = prepare
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<Program {self.command[0]} port={self.port} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        """None until it was started."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it. Raises CannotStart."""
        path = find(self.command[0], self.environment, self._directory)
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log_size = self._log.stat().st_size
        try:
            self._process = await asyncio.create_subprocess_exec(
                path,
                *self.command[1:],
                stdin=asyncio.subprocess.DEVNULL,
                env=self.environment,
                cwd=self._directory,
                start_new_session=True,
                preexec_fn=self._prepare,
            )
        except OSError as error:
            hint = "Does a script lack its first line, such as #!/bin/sh?" if error.errno == 8 else ""
            raise CannotStart(f"{path} cannot be run: {os.strerror(error.errno or 0)}", hint) from error

    async def wait(self) -> Ended:
        """Until it has ended by itself or by `end`. Its descendants may go on."""
        assert self._process is not None
        return Ended.of(await self._process.wait())

    async def end(self, grace: float) -> None:
        """SIGTERM to the program, then to what it leaves of its group; SIGKILL to all after `grace` seconds."""
        process = self._process
        if process is not None:
            await self._end(process, grace)
        self.release()

    async def _end(self, process: asyncio.subprocess.Process, grace: float) -> None:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await process.wait()
        if process.returncode is not None:
            self._signal(signal.SIGTERM)
            await self._until_group_is_empty(min(grace, LEFT_OVER_SECONDS))
        self.kill()
        await process.wait()

    def kill(self) -> None:
        """End the whole group at once."""
        self._signal(signal.SIGKILL)

    def release(self) -> None:
        """Let other programs have its port. Idempotent; `end` does so too."""
        self._reservation.close()

    def last_lines(self) -> str:
        """The end of what it has written to its log since it was started; empty when that is not known."""
        return "" if self._log is None else tail(self._log, self._log_size)

    def port_is_taken(self) -> bool:
        """Whether another process has its port, once it has ended itself."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError:
                return True
            return False

    async def _until_group_is_empty(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._signal(0):  # noqa: ASYNC110  # nothing tells of a group's end
                    await asyncio.sleep(GROUP_POLL_SECONDS)

    def _signal(self, number: int) -> bool:
        """Signal the group; False when nobody is left in it."""
        if self._process is None:
            return False
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def reserve_port(ports: Sequence[int] = PORTS) -> tuple[int, socket.socket]:
    """A port of the loopback address that nobody listens on now, and what keeps it from other callers until it is
    closed. Raises OSError when none is found."""
    failure = OSError("no free port")
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for _ in range(PORT_ATTEMPTS):
        port = random.choice(ports)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
                if sys.platform == "linux":  # a name without a file, which ends with its socket
                    reservation.bind(f"\0upwell-port-{port}")
            except OSError as error:
                failure = error
                continue
            return port, reservation
    reservation.close()
    raise failure


def find(name: str, environment: Mapping[str, str], directory: Path | None) -> str:
    """The file that a command's first word means, as a shell finds it. Raises CannotStart."""
    if directory is not None and not directory.is_dir():
        raise CannotStart(f"its working directory {directory} does not exist")
    if os.sep not in name:
        found = shutil.which(name, path=environment.get("PATH", os.defpath))
        if found is None:
            hint = "Is it installed, or is a ./ missing before it?"
            raise CannotStart(f"the command {name} was not found on PATH", hint)
        return found
    path = Path(directory or "", name)
    if not path.exists():
        raise CannotStart(f"the command {path} does not exist")
    if path.is_dir() or not os.access(path, os.X_OK):
        raise CannotStart(f"the command {path} is not executable", f"Try: chmod +x {path}")
    return str(path.absolute())


def tail(log: Path, start: int) -> str:
    """The last lines of a file that were written after its first `start` bytes, which may be gone by now."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = start if start <= size else 0
            file.seek(max(begin, size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(line[:TAIL_LINE_LENGTH] for line in lines[-TAIL_LINES:])
