"""Answers after a pause, so that a replica with room for one request is busy for a known time."""

import asyncio

PAUSE_SECONDS = 0.2


async def main() -> str:
    """A word, after the pause."""
    await asyncio.sleep(PAUSE_SECONDS)
    return "done"
