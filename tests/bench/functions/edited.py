"""What the reload benchmark saves again and again; it says its version and how long its own import took."""

import time

_began = time.perf_counter()
VERSION = "0"
import decimal  # noqa: E402  something to import, as functions do
import email.mime.multipart  # noqa: E402, F401

LARGEST = decimal.Decimal(10) ** 6
IMPORT_MILLISECONDS = (time.perf_counter() - _began) * 1000


async def app(scope, receive, send):  # type: ignore[no-untyped-def]
    """An application that `uvicorn --reload` serves just as well."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = f"{VERSION} {IMPORT_MILLISECONDS:.3f}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
