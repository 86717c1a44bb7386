"""A function whose import takes a known time, as that of a large library does."""

import time

IMPORT_SECONDS = 0.05

time.sleep(IMPORT_SECONDS)


async def main() -> str:
    """Answer once the import is done."""
    return "imported\n"
