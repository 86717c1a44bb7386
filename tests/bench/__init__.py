"""Benchmarks: what upwell costs, each beside its baseline of the same run. `python -m tests.bench --help`."""
