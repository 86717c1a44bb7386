"""A replica imports what its function needs and no more; memory and the time of a cold start hang on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    *("pydantic", "msgspec", "flask", "django", "fastapi", "functions_framework", "starlette", "cloudevents"),
    *("yaml", "numpy", "click", "rich", "anyio", "httpx"),
)

NULLARY = "async def main(): return 'hello'"
REQUEST = "async def main(request): return 'hello'"
EVENT = "async def main(event): return None"
TYPED = """
from dataclasses import dataclass
from upwell.functions.sdk import Context

@dataclass
class Order:
    number: int

def main(order: Order, ctx: Context): return order
"""
STRUCT = """
import msgspec

class Order(msgspec.Struct):
    number: int

def main(order: Order): return order
"""
STREAM = "async def main(): yield 'hello'"

PROGRAM = """
import sys
from pathlib import Path
from upwell.functions import handler, project
handler.adapt(project.load(Path(sys.argv[1]), "function", None, None), threads=1)
print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("source", "needed"),
    [
        (NULLARY, set()),
        (REQUEST, {"starlette", "anyio"}),
        (EVENT, {"cloudevents"}),
        (TYPED, set()),
        (STRUCT, {"msgspec"}),
        (STREAM, set()),
    ],
)
def test_only_what_the_function_needs_is_imported(source: str, needed: set[str], tmp_path: Path) -> None:
    (tmp_path / "function.py").write_text(source)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert {name for name in printed.split() if name in HEAVY} == needed
