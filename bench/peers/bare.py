"""A handler of aiohttp that answers `success` and does nothing: what the framework itself costs."""

from aiohttp import web

from bench.peers import notification


async def notify(_request: web.Request) -> web.Response:
    return web.Response(text="success")


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/notify/{merchantNo}/{storeNo}", notify)
    web.run_app(
        app, host="127.0.0.1", port=notification.port(), access_log=None, print=lambda *_: None
    )
