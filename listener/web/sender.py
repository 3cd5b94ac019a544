"""Ask about the connection of a request, and record what a handler learns of it.

A request that came through another server (in a test, say) has no such connection.
"""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from aiohttp import web

from listener.web.http_connection import HttpConnection

T = TypeVar("T")


async def while_heard(request: web.BaseRequest, waiting: Coroutine[None, None, T]) -> T | None:
    """Wait for something as long as the sender of a request may wait for the answer.

    Returns:
        The result; None once the sender has gone or stopped sending: the waiting is then cancelled.
    """
    task = asyncio.ensure_future(waiting)
    connection = request.protocol
    if isinstance(connection, HttpConnection):
        connection.on_end = task.cancel
    if has_gone(request):
        task.cancel()
    try:
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()
    finally:
        if isinstance(connection, HttpConnection):
            connection.on_end = None
        # Where this itself was cancelled.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def has_gone(request: web.BaseRequest) -> bool:
    """Return whether the sender of a request has gone, or has stopped sending."""
    connection = request.protocol
    return isinstance(connection, HttpConnection) and (
        connection.is_ended or connection.transport is None
    )


def heard_out(request: web.BaseRequest) -> None:
    """Record that a websocket has sent its key, which we now look up."""
    connection = request.protocol
    if isinstance(connection, HttpConnection):
        connection.heard_out()


def prove(request: web.BaseRequest) -> bool:
    """Record that a request has brought a valid key, or a new notification that verified.

    Return False if there is no place for one more such connection: it must not stay for long.
    """
    connection = request.protocol
    if not isinstance(connection, HttpConnection):
        return True
    return connection.is_proved or connection.prove()
