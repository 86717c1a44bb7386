"""A process that writes the autoscaler's state again and again until it is killed: `python state_writer.py FILE`.

Each time it says so on standard output beforehand; one writing differs from the next in all revisions and in size.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from upwell.autoscaler.decision import Status
from upwell.autoscaler.saved import SavedRevision
from upwell.runtime.control.saved import write_saved

LONG = "x" * 200_000
"""Takes longer to write than to make."""


def revisions(turn: int) -> dict[str, object]:
    """What is written in a turn: some revisions, all of which carry its number."""
    saved = SavedRevision(Status.ACTIVE, 1.0, True, False, None, 0, ((turn, 1),), turn, float(turn)).to_json()
    return {f"default/{LONG}-{number}": saved for number in range(turn * 7 % 20 + 1)}


if __name__ == "__main__":
    for turn in itertools.count():
        sys.stdout.write(f"{turn}\n")
        sys.stdout.flush()
        write_saved(Path(sys.argv[1]), revisions(turn))
