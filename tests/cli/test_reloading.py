"""What is saved is applied, in the order of its saving, and what fails leaves the rest standing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.platform import run, until
from upwell.functions.errors import InvalidFunction, Unavailable, UpwellError
from upwell.runtime.cli.reload import Applied, Reloader
from upwell.runtime.clock import SystemClock


@dataclass
class Told:
    """A console that keeps what it was told."""

    files: list[str] = field(default_factory=list)
    serving: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def changed(self, files: Sequence[str]) -> None:
        self.files += files

    def replaced(self, revision: str, seconds: float) -> None:
        self.serving.append(revision)

    def kept_serving(self, error: UpwellError) -> None:
        self.kept.append(error.what)


class Source:
    """A folder whose `text` file is applied: `bad` is refused, `slow` never serves, anything else does at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directories = frozenset({folder})
        self.applied: list[str] = []
        self.save("first")
        self.before = "first"

    def save(self, text: str) -> None:
        temporary = self.folder.parent / "temporary"
        temporary.write_text(text)
        temporary.replace(self.folder / "text")

    async def apply(self) -> Applied:
        text = (self.folder / "text").read_text()
        changed, self.before = text != self.before, text
        if text == "bad":
            raise InvalidFunction("bad")
        self.applied.append(text)

        async def serving() -> str:
            if text == "slow":
                await asyncio.Event().wait()
            if text == "broken":
                raise InvalidFunction("broken")
            return text

        return Applied(self.directories, changed, serving)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    folder = tmp_path / "watched"
    folder.mkdir()
    return Source(folder)


async def watching(source: Source, told: Told) -> asyncio.Task[None]:
    """A reloader under way, which has looked once, so that it is known to watch."""
    reloader = Reloader(source.apply, source.directories, told, SystemClock())
    task = asyncio.create_task(reloader.run())
    await until(lambda: bool(source.applied))
    return task


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_what_is_saved_serves_and_what_did_not_change_is_not_told_of(source: Source) -> None:
    async def main() -> None:
        told = Told()
        task = await watching(source, told)
        assert (told.files, told.serving) == ([], [])
        source.save("second")
        await until(lambda: told.serving == ["second"])
        assert "text" in told.files
        await end(task)

    run(main())


@pytest.mark.parametrize("fault", ["bad", "broken"])
def test_what_cannot_be_served_is_told_and_the_next_saving_is_taken(source: Source, fault: str) -> None:
    async def main() -> None:
        told = Told()
        task = await watching(source, told)
        source.save(fault)
        await until(lambda: told.kept == [fault])
        source.save("mended")
        await until(lambda: told.serving == ["mended"])
        await end(task)

    run(main())


def test_what_was_saved_before_the_watch_began_is_applied(source: Source) -> None:
    async def main() -> None:
        told = Told()
        source.save("meanwhile")
        task = await watching(source, told)
        await until(lambda: told.serving == ["meanwhile"])
        await end(task)

    run(main())


def test_a_saving_takes_the_place_of_one_that_still_rises(source: Source) -> None:
    async def main() -> None:
        told = Told()
        task = await watching(source, told)
        source.save("slow")
        await until(lambda: source.applied[-1] == "slow")
        source.save("quick")
        await until(lambda: told.serving == ["quick"])
        assert told.kept == []
        await end(task)

    run(main())


def test_a_directory_that_joins_is_watched_from_then_on(source: Source, tmp_path: Path) -> None:
    async def main() -> None:
        told = Told()
        task = await watching(source, told)
        joined = tmp_path / "joined"
        joined.mkdir()
        source.directories = frozenset({source.folder, joined})
        source.save("wider")
        await until(lambda: told.serving == ["wider"])
        (source.folder / "text").write_text(
            "from the side"
        )  # told by the new watch, or by the look that follows it
        await until(lambda: told.serving == ["wider", "from the side"])
        applied = len(source.applied)

        def seen() -> bool:
            (joined / "other").write_text("x")
            return len(source.applied) > applied

        await until(seen)
        await end(task)

    run(main())


def test_a_source_that_is_gone_ends_the_watch_with_a_reason(tmp_path: Path) -> None:
    async def main() -> None:
        async def apply() -> Applied:
            raise AssertionError("nothing is there to be applied")

        gone = frozenset({tmp_path / "gone"})
        with pytest.raises(Unavailable, match="gone from the disk"):
            await Reloader(apply, gone, Told(), SystemClock()).run()

    run(main())
