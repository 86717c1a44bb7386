"""A few pages of httpbin: answers of any status and slowness, and what a request looks like when it arrives."""

import asyncio
from typing import Any

from starlette.requests import Request

from upwell.functions.sdk import Reject

LONGEST_DELAY = 10.0


async def main(request: Request) -> Any:
    match request.url.path.strip("/").split("/"):
        case ["status", code]:
            return None, int(number(code, 200, 599))
        case ["delay", seconds]:
            await asyncio.sleep(min(number(seconds, 0, 3600), LONGEST_DELAY))
            return await seen(request)
        case ["headers"]:
            return {"headers": dict(request.headers)}
        case ["get"] if request.method in ("GET", "HEAD"):
            return await seen(request)
        case ["anything", *_]:
            return await seen(request)
        case _:
            raise Reject("there is /status/CODE, /delay/SECONDS, /headers, /get and /anything", 404)


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
