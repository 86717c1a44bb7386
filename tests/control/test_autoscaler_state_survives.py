"""What the autoscaler saves is there again after any end of its process, whole, or counts for nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from upwell.autoscaler.decision import Status
from upwell.autoscaler.saved import SavedRevision
from upwell.runtime.control.saved import (
    AT_ONCE,
    MOST_BYTES,
    SAVE_SECONDS,
    StateKeeper,
    read_saved,
    write_saved,
)
from upwell.runtime.testing.loop import run_fake

WRITER = Path(__file__).with_name("state_writer.py")
KILLS = 8
MOST_KILLS = 80
"""Until one has met a write."""
ONE = "default/one-00001"
SAVED = SavedRevision(Status.ACTIVE, 100.0, True, False, 150.0, 7, ((120, 9), (140, 3)), -11, 200.0)


def kept(path: Path, save: Callable[[], dict[str, Any]], seconds: float) -> list[float]:
    """When the file was another than a second before, while a keeper ran for so long."""

    async def scenario() -> list[float]:
        loop = asyncio.get_running_loop()
        keeper = asyncio.create_task(StateKeeper(path, lambda: save().items()).run())
        began, changes, before = loop.time(), [], None
        while (now := loop.time() - began) < seconds:
            content = path.read_bytes() if path.exists() else None
            if content != before:
                changes.append(now)
            before = content
            await asyncio.sleep(1.0)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        return changes

    return run_fake(scenario())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_saved(path, {ONE: SAVED.to_json()})
    assert read_saved(path) == {ONE: SAVED}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_where_nothing_was_written_there_is_nothing_to_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_saved(tmp_path / "state.json") == {}
    assert caplog.records == []


WRITTEN = json.dumps({"format": 1, "revisions": {ONE: SAVED.to_json()}}).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (WRITTEN[:-1], "damaged"),
        (WRITTEN[: len(WRITTEN) // 2], "damaged"),
        (b"\0" * len(WRITTEN), "damaged"),
        (b"\xff\xfe" + WRITTEN, "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[]", "format"),
        (b"null", "format"),
        (WRITTEN.replace(b'"format": 1', b'"format": 2'), "format"),
        (b'{"format": 1}', "damaged"),
        (b'{"format": 1, "revisions": []}', "damaged"),
    ],
)
def test_a_torn_or_foreign_file_counts_as_none_and_that_is_said(
    tmp_path: Path, content: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    assert read_saved(path) == {}
    (record,) = caplog.records
    assert reason in record.__dict__["reason"]


def test_a_file_that_is_too_large_or_none_at_all_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert read_saved(path) == {}
    assert read_saved(tmp_path) == {}


def test_a_pipe_in_the_place_of_the_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "state.json")
    os.mkfifo(tmp_path / "state.json.partial")
    assert read_saved(tmp_path / "state.json") == {}
    with pytest.raises(OSError, match="partial"):
        write_saved(tmp_path / "state.json", {})


def test_a_revision_that_cannot_be_read_does_not_keep_the_others(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"format": 1, "revisions": {ONE: SAVED.to_json(), "default/b": {"status": 5}}}))
    assert read_saved(path) == {ONE: SAVED}


def test_state_is_written_every_few_seconds_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    turns = iter(range(1000))

    def save() -> dict[str, Any]:
        return {f"default/{next(turns)}": SAVED.to_json()}

    changes = kept(path, save, SAVE_SECONDS * 3 + 2.5)
    assert [round((moment - 0.5) / SAVE_SECONDS) for moment in changes] == [1, 2, 3]
    assert read_saved(path) == {"default/3": SAVED}


def test_thousands_of_revisions_leave_room_for_others_while_they_are_gathered(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    many = 10 * AT_ONCE

    async def scenario() -> set[int]:
        turn, seen = 0, set[int]()
        is_gathering = False
        loop = asyncio.get_running_loop()

        def another() -> None:
            nonlocal turn
            turn += 1
            if is_gathering:
                loop.call_soon(another)

        def save() -> Iterator[tuple[str, Any]]:
            nonlocal is_gathering
            is_gathering = True
            loop.call_soon(another)
            for number in range(many):
                seen.add(turn)
                yield f"default/{number}", SAVED.to_json()
            is_gathering = False

        keeper = asyncio.create_task(StateKeeper(path, save).run())
        await asyncio.sleep(SAVE_SECONDS + 0.5)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        return seen

    assert len(run_fake(scenario())) >= many // AT_ONCE
    assert len(read_saved(path)) == many


def test_a_platform_at_rest_writes_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_saved(path, {ONE: SAVED.to_json()})
    calls: list[int] = []

    def save() -> dict[str, Any]:
        calls.append(path.stat().st_mtime_ns)
        return {}

    kept(path, save, SAVE_SECONDS * 10)
    assert read_saved(path) == {}
    assert len(calls) >= 9
    assert len(set(calls)) == 2, "what is no longer so is taken back, once"


def test_a_directory_that_cannot_be_written_is_told_of_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    folder = tmp_path / "later"
    path = folder / "state.json"
    turns: list[int] = []

    def save() -> dict[str, Any]:
        turns.append(len(turns))
        if len(turns) == 5:
            folder.mkdir()
        return {ONE: SAVED.to_json()}

    kept(path, save, SAVE_SECONDS * 8)
    assert read_saved(path) == {ONE: SAVED}
    assert [record.getMessage() for record in caplog.records] == ["the autoscaler's state cannot be saved"]


def turns_of_a_killed_writer(path: Path, seconds: float) -> list[int]:
    """The turns that a writer began before it was killed, so long after its first."""
    with subprocess.Popen([sys.executable, str(WRITER), str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        timer = threading.Timer(seconds, os.kill, (writer.pid, signal.SIGKILL))
        timer.start()
        said += writer.stdout.readlines()
        timer.join()
        assert writer.wait() == -signal.SIGKILL
    return [int(line) for line in said if line.endswith(b"\n")]


def test_a_writer_that_is_killed_leaves_one_writing_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    chosen = random.Random(7)
    torn = 0
    for kill in range(MOST_KILLS):
        if torn and kill >= KILLS:
            break
        write_saved(path, {})
        turns = turns_of_a_killed_writer(path, chosen.random() * 0.15)
        found = read_saved(path)
        torn += (tmp_path / "state.json.partial").exists()
        stamps = {saved.excess_burst_capacity for saved in found.values()}
        assert len(stamps) <= 1, "two writings are mixed"
        if not found:
            assert turns[-1] <= 1, "what was written was lost"
            continue
        (turn,) = stamps
        assert turn in turns[-2:], "neither the last nor the one before it"
        assert len(found) == turn * 7 % 20 + 1
    assert torn, "none was killed while it wrote, so nothing was tried"
