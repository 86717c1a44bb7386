"""Answers with a stream: each piece that is yielded is sent at once."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

PAUSE_SECONDS = 0.1


async def main(request: Request) -> AsyncIterator[str]:
    count = int(request.query_params.get("count", "5"))
    for number in range(count):
        if number:
            await asyncio.sleep(PAUSE_SECONDS)
        yield f"{number + 1} of {count}\n"
