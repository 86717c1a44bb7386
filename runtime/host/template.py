"""A template: a process forked from the zygote that has imported one revision's module and forks its replicas.

It has no event loop and no thread. A replica is forked twice, the process between ending at once, so that the
zygote is its parent and an evicted template takes none with it. All of that is done ahead: a standby, adopted by
the zygote and with an event loop of its own, is parked in one blocking read and becomes the replica itself when
its command comes. A pipe on which it says so lets the template fork the next one a little later, or at once when
more is asked for: commands that wait already are carried out by a child of the template, which forks their
replicas and ends. A standby stays in its template's process group until it is a replica, and so ends with it; it
also ends when the platform closes the socket.

A module that started threads or opened what must not be shared is told to the platform instead of being forked;
commands that came before that was known go back with their descriptors.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import traceback
from typing import NoReturn

from upwell.functions.errors import InvalidFunction
from upwell.runtime import procfs
from upwell.runtime.clock import SystemClock
from upwell.runtime.host import confine, linux, replica
from upwell.runtime.host.source import FunctionSource
from upwell.runtime.host.wire import Message, Received, Wire

FORKED = 0
FAILED = 1
ENDED = 10
"""Exit codes of a child that carries out commands: they are, it cannot, or the platform has closed the socket."""

TAKEN = bytes((FORKED,))
CLOSED = bytes((ENDED,))
"""What a standby says in its pipe: it has its command, or the platform has closed the socket."""

RESPITE_SECONDS = 0.02
"""What a replica needs to start, several times over on an idle machine."""

CARRIED_MOST = 8
"""Commands that one child carries out: each saves a fork, but their replicas are adopted only when it ends."""

SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Numeric libraries start threads while they are imported unless these say 1."""

UNSHAREABLE = {
    "socket:": "a socket",
    "pipe:": "a pipe",
    "anon_inode:[eventpoll]": "an epoll instance (an event loop?)",
    "anon_inode:[eventfd]": "an eventfd",
    "anon_inode:[timerfd]": "a timer",
    "anon_inode:[signalfd]": "a signalfd",
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:inotify": "an inotify instance",
    "/dev/nvidia": "a GPU device",
    "/dev/dri/": "a GPU device",
    "/dev/kfd": "a GPU device",
}
"""Descriptors that two processes cannot both use, by how the kernel names them."""


def run(source: FunctionSource, control: socket.socket, zygote: int) -> NoReturn:
    """The template's whole life in a process that was just forked. Ends the process."""
    code = 1
    try:
        os.setpgid(0, 0)  # the zygote ends the whole group with it: the standby, and what the import started
        linux.die_with_parent(signal.SIGKILL)
        if os.getppid() == zygote:
            code = _serve(source, Wire(control), zygote)
    except OSError:
        code = 1  # the platform is gone
    finally:
        replica.flush()
        os._exit(code)


def _serve(source: FunctionSource, wire: Wire, zygote: int) -> int:
    wire.send({"pid": os.getpid()})
    enter(source)
    before = set(procfs.descriptors().values())
    clock = SystemClock()
    began = clock.monotonic()
    try:
        function = replica.Function.load(source)
    except BaseException as error:  # the import is the user's code, and may even exit
        wire.send({"failed": describe(error)})
        return 1
    reasons = unforkable(before)
    wire.send({"loaded": {"seconds": clock.monotonic() - began, "reasons": reasons}})
    if reasons:
        return _return_commands(wire)
    gc.collect()
    gc.freeze()
    return _fork_replicas(function, wire, zygote)


def enter(source: FunctionSource) -> None:
    """Make the process the function's: its output, limits, environment, working directory and name."""
    confine.log_to(source.log)
    confine.be_expendable()
    confine.limit_memory(source.memory_bytes)
    os.environ.update(source.environment)
    for name in SINGLE_THREADED:
        os.environ.setdefault(name, "1")
    with contextlib.suppress(OSError):
        os.chdir(source.root)
    sys.argv = [source.module]


def describe(error: BaseException) -> Message:
    """A failed import in words, for the platform."""
    if isinstance(error, InvalidFunction):
        cause = error.__cause__
        text = "" if cause is None else "".join(traceback.format_exception(cause))
        return {"what": error.what, "where": error.where, "hint": error.hint, "traceback": text}
    text = "".join(traceback.format_exception(error))
    if isinstance(error, SystemExit):
        what = f"the module exits while it is imported (sys.exit({error.code!r}))"
    else:
        what = f"{type(error).__name__}: {error}"
    return {"what": what, "where": "", "hint": "", "traceback": text}


def unforkable(before: set[str]) -> list[str]:
    """Why a process with these descriptors before an import cannot be forked after it; empty when it can."""
    reasons = []
    threads = max(procfs.thread_count(), threading.active_count())
    if threads > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:]) or "of a C library"
        reasons.append(f"it started {threads - 1} thread(s): {names}")
    for target in sorted(set(procfs.descriptors().values()) - before):
        reasons += [f"it opened {what}" for prefix, what in UNSHAREABLE.items() if target.startswith(prefix)]
    return list(dict.fromkeys(reasons))


def _return_commands(wire: Wire) -> int:
    while (batch := wire.read()) is not None:
        for message, descriptors in batch:
            wire.send({"returned": message["name"], "sent": message["sent"]}, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
    return 0


def _fork_replicas(function: replica.Function, wire: Wire, zygote: int) -> int:
    """Keep one standby until the platform closes the socket."""
    code = FORKED
    while code == FORKED:
        # What is only loaded to see whether it can be is let go at once and needs no standby. After a start a
        # replica is at work, and a fork beside it slows it down by a third.
        act = _carry_out if _is_readable(wire, RESPITE_SECONDS) else _keep_standby
        code = act(function, wire, zygote)
    return 0 if code == ENDED else 1


def _carry_out(function: replica.Function, wire: Wire, zygote: int) -> int:
    """Have a child fork what has been asked for already, and end."""
    template = os.getpid()
    child = os.fork()
    if child == 0:
        linux.die_with_parent(signal.SIGKILL)
        carried = 0
        while os.getppid() == template and carried < CARRIED_MOST and _is_readable(wire, 0.0):
            batch = _commands(wire)
            if not batch:
                break
            for received in batch:
                _fork_replica(function, received, wire, zygote)
            carried += len(batch)
        os._exit(FORKED if carried else ENDED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _is_readable(wire: Wire, seconds: float) -> bool:
    """Whether commands, or the end of the socket, come within `seconds`."""
    return bool(select.select([wire.socket], [], [], seconds)[0])


def _keep_standby(function: replica.Function, wire: Wire, zygote: int) -> int:
    """Fork a standby for the zygote to adopt, and wait until it is of no use any more."""
    watched, told = os.pipe()
    between = os.fork()
    if between == 0:
        os.close(watched)
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                os._exit(_stand_by(function, wire, zygote, told))
        os._exit(0)
    os.close(told)
    os.waitpid(between, 0)
    said = os.read(watched, 1)
    os.close(watched)
    return said[0] if said else FAILED  # it was killed


def _stand_by(function: replica.Function, wire: Wire, zygote: int, told: int) -> int:
    """Be adopted, wait for a command and become its replica. Commands that came together are forked instead."""
    if not replica.settle(zygote):
        return FAILED
    confine.mark(os.getpid())
    loop = replica.new_loop()
    batch = _commands(wire)
    picked_up = SystemClock().monotonic()
    with contextlib.suppress(OSError):  # the template has ended
        os.write(told, TAKEN if batch else CLOSED)
    os.close(told)
    if len(batch) == 1:
        _become_replica(function, batch[0], wire, replica.Birth(picked_up, zygote, loop))
    loop.close()
    for received in batch:
        _fork_replica(function, received, wire, zygote)
    return FORKED


def _commands(wire: Wire) -> list[Received]:
    """Wait for commands; none when the platform has closed the socket."""
    batch: list[Received] = []
    while not batch or wire.has_partial:
        further = wire.read()
        if further is None:
            return []
        batch += further
    return batch


def _fork_replica(function: replica.Function, received: Received, wire: Wire, zygote: int) -> None:
    picked_up = SystemClock().monotonic()
    with contextlib.suppress(OSError):  # no memory or no process to be had: the closing channel tells
        if os.fork() == 0:
            _become_replica(function, received, wire, replica.Birth(picked_up, zygote))
    for descriptor in received.descriptors:
        os.close(descriptor)


def _become_replica(function: replica.Function, received: Received, wire: Wire, birth: replica.Birth) -> NoReturn:
    wire.close()
    message, descriptors = received
    listener, channel = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    replica.run(function, listener, channel, replica.Start(message["name"], message["sent"], birth))
