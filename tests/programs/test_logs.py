"""What functions and programs print goes to their revision's log at once, and the log stays bounded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.host import hosting, reached, run
from support.programs import program, serving
from upwell.runtime.cluster.logs import LogKeeper


def test_a_function_s_import_its_handler_and_its_errors_are_in_the_log_at_once(tmp_path: Path) -> None:
    text = """
        import sys
        print("imported")
        def main(request):
            print("called")
            print("and complained", file=sys.stderr)
            if request.url.path == "/fail":
                raise ValueError("no such luck")
            return "hi"
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            log = tmp_path / "logs" / "default" / "hello" / "hello-00001.log"
            running = await host.serve(text, log=log)
            assert (await running.get()).body == b"hi"
            assert log.read_text() == "imported\ncalled\nand complained\n"
            assert (await running.get("/fail")).status == 500
            assert "ValueError: no such luck" in log.read_text()
            assert log.stat().st_mode & 0o777 == 0o600
            assert log.parent.stat().st_mode & 0o777 == 0o700

    run(main())


def test_the_reason_of_a_failed_import_and_what_it_printed_are_in_the_log(tmp_path: Path) -> None:
    async def main() -> None:
        async with hosting(tmp_path) as host:
            template = host.load("print('before')\nraise ValueError('bad day')", log=tmp_path / "f.log")
            await reached(template.loaded.done)
            await reached(lambda: (tmp_path / "f.log").read_text() == "before\n")

    run(main())


def test_a_program_s_output_is_in_the_log_at_once(tmp_path: Path) -> None:
    text = """
        print("started")
        def answer(request):
            print("called", request.path)
            print("and complained", file=sys.stderr)
            return 200, ""
    """

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await serving(host, program(tmp_path / "p", text))
            await running.get("/here")
            assert (tmp_path / "p" / "output.log").read_text() == "started\ncalled /here\nand complained\n"

    run(main())


def test_a_log_that_cannot_be_opened_keeps_no_function_from_serving(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    async def main() -> None:
        async with hosting(tmp_path) as host:
            running = await host.serve("def main(): return 'hi'", log=tmp_path / "file" / "f.log")
            assert (await running.get()).body == b"hi"

    run(main())
    assert "no log at" in capfd.readouterr().err


def test_a_log_that_has_grown_too_large_is_moved_on_and_its_writer_goes_on(tmp_path: Path) -> None:
    keeper = LogKeeper(tmp_path, most_bytes=100)
    log = tmp_path / "default" / "hello" / "hello-00001.log"
    log.parent.mkdir(parents=True)
    with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w") as writer:
        writer.write("a" * 100)
        writer.flush()
        assert keeper.look() == []
        writer.write("b" * 50)
        writer.flush()
        assert keeper.look() == [log]
        writer.write("fresh")
        writer.flush()
        assert log.read_text() == "fresh"
        old = log.with_name("hello-00001.log.1")
        assert old.read_text() == "a" * 100 + "b" * 50
        assert old.stat().st_mode & 0o777 == 0o600
        writer.write("c" * 100)
        writer.flush()
        assert keeper.look() == [log]
    assert old.read_text() == "fresh" + "c" * 100
    assert sorted(path.name for path in log.parent.iterdir()) == ["hello-00001.log", "hello-00001.log.1"]


def test_of_a_log_that_grew_by_far_too_large_meanwhile_only_the_end_is_kept(tmp_path: Path) -> None:
    keeper = LogKeeper(tmp_path, most_bytes=100)
    log = tmp_path / "default" / "hello" / "hello-00001.log"
    log.parent.mkdir(parents=True)
    log.write_text("a" * 5000 + "b" * 200)
    assert keeper.look() == [log]
    assert log.with_name("hello-00001.log.1").read_text() == "b" * 200
    assert log.read_text() == ""


def test_a_log_that_is_written_faster_than_it_is_copied_is_bounded(tmp_path: Path) -> None:
    keeper = LogKeeper(tmp_path, most_bytes=1 << 20)
    log = tmp_path / "default" / "hello" / "hello-00001.log"
    log.parent.mkdir(parents=True)
    with subprocess.Popen(["sh", "-c", f"exec head -c 2G /dev/zero >> {log}"]) as writer:
        try:
            for _ in range(3):
                run(reached(lambda: log.exists() and log.stat().st_size > 1 << 20, "a large log"))
                assert keeper.look() == [log]
                assert log.with_name("hello-00001.log.1").stat().st_size <= 2 << 20
        finally:
            writer.kill()
