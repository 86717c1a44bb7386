"""What a platform holds costs requests nothing: the collector leaves it alone and seldom runs."""

import subprocess
import sys

SCRIPT = """
import gc
from upwell.runtime.collector import THRESHOLDS, settle

before = gc.get_threshold()
settle()
assert gc.get_threshold() == THRESHOLDS != before
assert gc.get_freeze_count() > 1000

passes = []
gc.callbacks.append(lambda phase, info: passes.append(info["generation"]))
under_way = [[] for _ in range(5000)]
under_way.clear()
assert passes == []
cycles = []
for _ in range(20_000):
    cycle = []
    cycle.append(cycle)
assert passes
"""


def test_requests_under_way_start_no_pass_and_cycles_do() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
