"""What the page's server refuses before gradio reads it: large bodies, and addresses to fetch."""

from pathlib import Path
from typing import TypeVar

import gradio as gr
from starlette import formparsers, types
from starlette import middleware as starlette_middleware

OTHERS_BYTES = 1_000_000  # of a request that is no upload, and of what stands around a file
UPLOAD = "/gradio_api/upload"
Component = TypeVar("Component", bound=gr.components.Component)


def middleware(most_mb: float) -> starlette_middleware.Middleware:
    """Returns what refuses requests with more than `most_mb` in all, however many files."""
    return starlette_middleware.Middleware(_Measured, most_bytes=int(most_mb * 1e6))


class _Measured:
    """Counts the bytes of every request; a stated length is refused before any of it is read."""

    def __init__(self, app: types.ASGIApp, most_bytes: int):
        self._app, self._most_bytes = app, most_bytes

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most, came, begun = OTHERS_BYTES, 0, False
        is_upload = scope["path"].rstrip("/").endswith(UPLOAD)
        most += self._most_bytes * is_upload
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > most:
            await _refuse(send, self._most_bytes)
            return

        async def counted() -> types.Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            # this error alone makes gradio remove the part of a file that it has written
            if came > most:
                raise formparsers.MultiPartException(f"maximum allowed size: {most} bytes")
            if message["type"] == "http.disconnect" and is_upload:
                raise formparsers.MultiPartException("the client has left")
            return message

        async def noticed(message: types.Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, counted, noticed)
        except formparsers.MultiPartException:
            if not begun:
                await _refuse(send, self._most_bytes)


async def _refuse(send: types.Send, most_bytes: int) -> None:
    words = f"more than the maximum file size of {most_bytes / 1e6:g} MB".encode()
    body = b'{"detail": "' + words + b'"}'
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def uploaded(component: Component) -> Component:
    """Returns a component whose files are uploaded: gradio also fetches addresses, of any size.

    A subclass would do as well, but gradio writes a file of types beside the source of each.
    """
    move = component.async_move_resource_to_block_cache

    async def moved(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("an address was given; upload the file itself", print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = moved
    return component
