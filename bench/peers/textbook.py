"""The textbook: aiohttp + aiosqlite. With BENCH_LOCK=yes it makes one commit a request.

Without the lock one request's commit takes in whatever others have begun: a group commit by luck,
and a rollback would take back what others were told is stored.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext

import aiosqlite
from aiohttp import web

from bench.peers import notification

DATABASE = web.AppKey("database", aiosqlite.Connection)
LOCK = web.AppKey("lock", AbstractAsyncContextManager)


async def notify(request: web.Request) -> web.Response:
    form = {name: str(value) for name, value in (await request.post()).items()}
    if not notification.verifies(form, notification.token_digest()):
        return web.Response(status=401, text="fail")
    place = request.match_info
    row = notification.row(form, place["merchantNo"], place["storeNo"])
    db = request.app[DATABASE]
    async with request.app[LOCK]:
        await db.execute(notification.INSERT, row)
        await db.commit()
    return web.Response(text="success")


async def database(app: web.Application) -> AsyncIterator[None]:
    async with aiosqlite.connect(notification.database()) as db:
        for statement in (*notification.PRAGMAS, notification.SCHEMA):
            await db.execute(statement)
        app[DATABASE] = db
        app[LOCK] = asyncio.Lock() if os.environ["BENCH_LOCK"] == "yes" else nullcontext()
        yield


if __name__ == "__main__":
    app = web.Application()
    app.cleanup_ctx.append(database)
    app.router.add_post("/notify/{merchantNo}/{storeNo}", notify)
    web.run_app(
        app, host="127.0.0.1", port=notification.port(), access_log=None, print=lambda *_: None
    )
