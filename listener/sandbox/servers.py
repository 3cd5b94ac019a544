"""Start the stand-in Pockyt and the wallet server together, and stop both cleanly."""

import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import aiohttp
from aiohttp import web

from listener.pockyt.signature import Token
from listener.sandbox.book import SALES_MAX, Book, RefundShows, Sale
from listener.sandbox.control import CHECKOUT_PATH, Control
from listener.sandbox.desk import Desk
from listener.sandbox.faults import Planned, Script
from listener.sandbox.notifier import Notifier
from listener.sandbox.pockyt import PockytServer
from listener.sandbox.stage import Stage
from listener.sandbox.steps import OnStep, say_nothing
from listener.sandbox.tasks import TASKS_MAX, SandboxClock, Tasks
from listener.sandbox.wallet import WalletServer

# Pockyt's public sample merchant; its tokens are printed in the documentation.
SAMPLE_MERCHANT_NO: Final = "200043"
SAMPLE_STORES: Final = ("303660", "300014")
SAMPLE_TOKEN: Final = "5cbfb079f15b150122261c8537086d77a"  # noqa: S105 - public sample
SAMPLE_OLD_TOKEN: Final = "359c05eb811c7c8576f4a8a277dc6f6b"  # noqa: S105 - public sample

STOP_SECONDS: Final = 1.0
REQUEST_SECONDS: Final = 10.0
BODY_BYTES_MAX: Final = 64 * 1024
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """How a sandbox behaves.

    Port 0 chooses any free port. ``merchants`` and ``old_tokens`` map merchant numbers to API
    tokens. ``notify_url`` is for sales without an ipnUrl; ``{merchantNo}`` and ``{storeNo}`` in
    it are filled in. ``time_scale`` sandbox seconds pass in each real one. ``url`` is the base
    URL for customers and the wallet server, if it is not the listening address.
    """

    host: str = LOOPBACK
    port: int = 0
    wallet_port: int = 0
    url: str | None = None
    merchants: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({SAMPLE_MERCHANT_NO: SAMPLE_TOKEN}), repr=False
    )
    old_tokens: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({SAMPLE_MERCHANT_NO: SAMPLE_OLD_TOKEN}),
        repr=False,
    )
    notify_url: str | None = None
    seed: int = 0
    time_scale: float = 1.0
    notify_on_cancel: bool = True
    refund_shows: RefundShows = "success"
    faults: tuple[Planned, ...] = ()
    sales_max: int = SALES_MAX
    tasks_max: int = TASKS_MAX


class Sandbox:
    """A running stand-in Pockyt (``url``) and wallet server (``wallet_url``).

    ``book`` holds the truth, ``script`` the faults; both may be used while it runs. ``server``
    answers Pockyt's calls.
    """

    def __init__(
        self, *, url: str, wallet_url: str, book: Book, stage: Stage, server: PockytServer
    ) -> None:
        self.url = url
        self.wallet_url = wallet_url
        self.book = book
        self.script = stage.script
        self.server = server
        self._stage = stage

    @staticmethod
    @asynccontextmanager
    async def start(
        settings: SandboxSettings, *, on_step: OnStep = say_nothing
    ) -> AsyncIterator["Sandbox"]:
        """Run both servers for as long as the context lasts; every task ends with it.

        Raises:
            OSError: A port is taken.
        """
        async with AsyncExitStack() as stack:
            listening = stack.enter_context(_listen(settings.host, settings.port))
            wallet_listening = stack.enter_context(_listen(LOOPBACK, settings.wallet_port))
            timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
            stage = Stage(
                session=await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout)),
                clock=SandboxClock(time_scale=settings.time_scale),
                tasks=Tasks(tasks_max=settings.tasks_max),
                script=Script(settings.faults, seed=settings.seed),
                on_step=on_step,
            )
            # Runs once both servers are down, when nothing can start another task.
            stack.push_async_callback(stage.tasks.stop)
            sandbox = _join(
                settings,
                url=settings.url or _url(listening),
                wallet_url=_url(wallet_listening),
                stage=stage,
            )
            control = Control(book=sandbox.book, script=stage.script, front=sandbox.server.front)
            await _serve(stack, WalletServer(stage=stage).routes(), wallet_listening)
            await _serve(stack, [*sandbox.server.routes(), *control.routes()], listening)
            sweeping = Tasks()
            sweeping.start(sandbox.server.sweep())
            stack.push_async_callback(sweeping.stop)
            yield sandbox

    def pay(self, transaction_no: str) -> Sale:
        """Pay a sale as the customer does.

        Raises:
            RefusalError: There is no such sale, or it is not open any more.
        """
        return self.server.front.pay(transaction_no)

    async def idle(self) -> None:
        """Wait until every notification and request to the wallet was delivered or given up."""
        await self._stage.tasks.idle()


def _join(settings: SandboxSettings, *, url: str, wallet_url: str, stage: Stage) -> Sandbox:
    """Connect the parts of a sandbox."""
    merchants = {number: Token(text) for number, text in settings.merchants.items()}
    book = Book(
        seed=settings.seed, refund_shows=settings.refund_shows, sales_max=settings.sales_max
    )
    server = PockytServer(
        book=book,
        desk=Desk(book, merchants=merchants, checkout_url=url + CHECKOUT_PATH),
        notifier=Notifier(
            merchants=merchants,
            old_tokens={number: Token(text) for number, text in settings.old_tokens.items()},
            notify_url=settings.notify_url,
            stage=stage,
        ),
        stage=stage,
        url=url,
        wallet_url=wallet_url,
        notify_on_cancel=settings.notify_on_cancel,
    )
    return Sandbox(url=url, wallet_url=wallet_url, book=book, stage=stage, server=server)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _url(listening: socket.socket) -> str:
    """Return the URL of a listening socket; of one that listens everywhere, this machine's."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _serve(
    stack: AsyncExitStack, routes: Iterable[web.RouteDef], listening: socket.socket
) -> None:
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.add_routes(routes)
    # A handler that hangs on purpose must end when its caller goes away.
    runner = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=STOP_SECONDS
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listening).start()
