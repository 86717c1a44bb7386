"""What `run` leaves on its platform while a source is applied again and again."""

from __future__ import annotations

from pathlib import Path

from support.platform import platform, run
from upwell.runtime.cli.local import KEPT_REVISIONS, LocalDeployment, local_source
from upwell.runtime.cluster.kinds import REVISION


def test_many_savings_keep_few_revisions_and_what_did_not_change_is_no_change(tmp_path: Path) -> None:
    source = tmp_path / "hello.py"

    async def main() -> None:
        async with platform(tmp_path) as on:
            deployment = LocalDeployment(on, local_source(str(source), {}, {}), tmp_path / "bundles", print)
            for number in range(KEPT_REVISIONS + 3):
                source.write_text(f"async def main():\n    return '{number}'\n")
                applied = await deployment.apply()
                assert applied.changed
                assert applied.directories == {tmp_path}
                assert await applied.serving() == f"default/hello-{number + 1:05}"
            assert not (await deployment.apply()).changed
            kept = [revision["metadata"]["name"] for revision in await on.objects.list(REVISION)]
            assert kept == ["hello-00004", "hello-00005"]

    source.write_text("")
    run(main())


def test_the_directories_of_a_source_are_those_that_hold_what_is_served(tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "words" / "deep").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "main.py").write_text("from words import WORD\n\ndef main():\n    return WORD\n")
    (root / "words" / "__init__.py").write_text("from words.deep import WORD as WORD\n")
    (root / "words" / "deep" / "__init__.py").write_text("WORD = 1\n")
    (root / "data" / "unused.txt").write_text("for a directory everything counts")

    async def main(path: Path) -> frozenset[Path]:
        async with platform(tmp_path / "state") as on:
            deployment = LocalDeployment(on, local_source(str(path), {}, {}), on.directory / "bundles", print)
            return (await deployment.apply()).directories

    words = {root, root / "words", root / "words" / "deep"}
    (tmp_path / "state").mkdir()
    assert run(main(root)) == words | {root / "data"}
    assert run(main(root / "main.py")) == words
