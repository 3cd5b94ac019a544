"""FastAPI under uvicorn (with uvloop and httptools), one commit a request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from bench.peers import notification


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.db = notification.connect()
    yield
    app.state.db.close()


app = FastAPI(lifespan=lifespan)


@app.post("/notify/{merchant_no}/{store_no}", response_class=PlainTextResponse)
async def notify(merchant_no: str, store_no: str, request: Request) -> PlainTextResponse:
    form = {name: str(value) for name, value in (await request.form()).items()}
    if not notification.verifies(form, notification.token_digest()):
        return PlainTextResponse("fail", status_code=401)
    # In the event loop: on a disk this quick, a hop to a thread and back costs more.
    app.state.db.execute(notification.INSERT, notification.row(form, merchant_no, store_no))
    return PlainTextResponse("success")


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=notification.port(), access_log=False, log_level="error"
    )
