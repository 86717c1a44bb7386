"""Greets whoever the query names: the function gets the request and returns what is to be answered."""

from starlette.requests import Request


async def main(request: Request) -> dict[str, str]:
    name = request.query_params.get("name", "World")
    return {"greeting": f"Hello, {name}!"}
