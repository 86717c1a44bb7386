"""Tells how long a request's body is, after a pause in which its replica may be told to end."""

import asyncio

from starlette.requests import Request

PAUSE_SECONDS = 0.003


async def main(request: Request) -> str:
    """The length of the body in decimal digits."""
    body = await request.body()
    await asyncio.sleep(PAUSE_SECONDS)
    return str(len(body))
