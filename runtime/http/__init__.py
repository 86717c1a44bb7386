"""HTTP/1.1 on the wire: the server side, pooled upstream connections, and the forwarder between them.

Callbacks on asyncio transports; on the path of a request no task, future or coroutine is made. `server` calls a
handler with an `Exchange`; the handler answers it or gives it to `forward`. `asgi` serves an ASGI application on
uvicorn's protocol instead, for replicas and the admin page.
"""
