"""A few pages of httpbin: answers of any status and slowness, and what a request looks like when it arrives.

Besides, one replica of several can be made to fail for a while.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from upwell.functions.sdk import Reject

LONGEST_DELAY = 10.0
LONGEST_FAILURE = 3600.0


@dataclass
class Failure:
    """What this replica answers to everything until a time has come."""

    status: int = 0
    until: float = 0.0


failure = Failure()


async def main(request: Request) -> Any:
    path = request.url.path.strip("/").split("/")
    now = asyncio.get_running_loop().time()
    match path:
        case ["fail", code, seconds] if request.method == "POST":
            failure.status = int(number(code, 400, 599))
            failure.until = now + number(seconds, 0, LONGEST_FAILURE)
            return f"{os.getpid()} answers {failure.status} for {seconds} s\n"
        case _ if now < failure.until:
            return f"{os.getpid()} fails\n", failure.status
        case _:
            return await page(request, path)


async def page(request: Request, path: list[str]) -> Any:
    match path:
        case ["status", code]:
            return None, int(number(code, 200, 599))
        case ["delay", seconds]:
            await asyncio.sleep(min(number(seconds, 0, 3600), LONGEST_DELAY))
            return await seen(request)
        case ["headers"]:
            return {"headers": dict(request.headers)}
        case ["replica"]:
            return f"{os.getpid()}\n"
        case ["get"] if request.method in ("GET", "HEAD"):
            return await seen(request)
        case ["anything", *_]:
            return await seen(request)
        case _:
            raise Reject("there is /status/CODE, /delay/SECONDS, /headers, /get, /anything and /replica", 404)


async def seen(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": str(request.url),
        "args": dict(request.query_params),
        "headers": dict(request.headers),
        "data": (await request.body()).decode(errors="replace"),
    }


def number(text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Reject(f"{text} is no number") from None
    if not least <= value <= most:
        raise Reject(f"{text} is not from {least:g} to {most:g}")
    return value
