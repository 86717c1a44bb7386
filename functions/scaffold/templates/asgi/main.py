"""An application with routes of its own: any ASGI application is served as it is, and any WSGI application."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


async def home(request: Request) -> Response:
    return PlainTextResponse("Hello, World!\n")


async def greet(request: Request) -> Response:
    return JSONResponse({"greeting": f"Hello, {request.path_params['name']}!"})


app = Starlette(routes=[Route("/", home), Route("/greetings/{name}", greet)])
