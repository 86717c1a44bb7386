"""The example of a program does what its page says, on a whole platform."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import yaml

from support.platform import PATIENCE, Function, platform, run, until

EXAMPLE = Path(__file__).parents[2] / "examples" / "program"


def test_the_program_answers_behind_its_manifest(tmp_path: Path) -> None:
    manifest = yaml.safe_load((EXAMPLE / "service.yaml").read_text())
    image = manifest["spec"]["template"]["spec"]["containers"][0]["image"]
    shutil.copy(EXAMPLE / "server.py", tmp_path)

    async def main() -> None:
        async with platform(tmp_path, logs=tmp_path / "logs") as on:
            images = {image: f"cmd:{sys.executable} {tmp_path / 'server.py'}"}
            (applied,) = await on.apply([manifest], images=images)
            ready = await on.wait_ready(applied.key, PATIENCE)
            revision = ready["status"]["latestReadyRevisionName"]
            program = Function(on, "program", f"default/{revision}")
            assert (await program.ask("/there")).text == "Good day from /there\n"
            log = tmp_path / "logs" / "default" / "program" / f"{revision}.log"
            assert "listening on" in log.read_text()
            await until(lambda: log.read_text().count("told to end") == 1, "the end of the trial")
            await program.scale(0)
            await until(lambda: log.read_text().count("told to end") == 2, "the end of the replica")

    run(main())
