"""The ledger on PostgreSQL, as one of any number of nodes uses it."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from listener import __version__, log
from listener.errors import LedgerUnavailableError
from listener.ledger.model import Event, Fact
from listener.ledger.nodes import NodeState, Seat
from listener.ledger.promise import Bell, Follows, Skip, always, ignore
from listener.ledger.results import Recorded, Remembered
from listener.ledger.schedule import Confirm
from listener.storage.postgres.bell import Publisher
from listener.storage.postgres.channel import SILENT_SECONDS, Channel
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.errands import Acks, Answers, analyze
from listener.storage.postgres.location import Location, read_location
from listener.storage.postgres.node import Node, read_nodes, run_heartbeat
from listener.storage.postgres.presence import NodeSessions
from listener.storage.postgres.readable import ReadableLedger
from listener.storage.postgres.schema import identify
from listener.storage.postgres.texts import packed
from listener.storage.postgres.turns import NodeTurns, run_renewal
from listener.storage.postgres.waiting import watched
from listener.storage.postgres.watch import Watch
from listener.storage.postgres.writer import Appended, Writer
from listener.storage.queue import OnCommit

# One batch is worked out while the server appends another.
WRITERS: Final = 2
# Plans made on empty tables are kept, so the tables are analysed at this size.
ANALYZE_ENTRIES: Final = 1_000

_LOG: Final = logging.getLogger(__name__)


class PostgresLedger(ReadableLedger):
    """``listener.ledger.promise.Ledger`` and ``listener.keys.KeyStore`` on PostgreSQL."""

    def __init__(
        self,
        *,
        channel: Callable[..., Channel],
        node: Node,
        secret: bytes,
        confirm: Confirm,
        clock: Callable[[], int],
        on_commit: OnCommit | None,
    ) -> None:
        super().__init__(channel, on_connect=node.meet)
        self.node = node
        self.secret = secret
        self._clock = clock
        self._listeners: list[tuple[Bell, Follows, Skip]] = []
        self._epoch_hooks: list[Callable[[], None]] = []
        node.on_epoch = self._begin_epoch
        node.on_server = self._leave_server
        node.lag = lambda: self._publisher.lag
        self._bell_channel = channel("bell", on_connect=self._meet_and_listen)
        self._publisher = Publisher(
            channel=self._bell_channel,
            follows=lambda stream: any(follows(stream) for _, follows, _ in self._listeners),
            ring=self._ring,
            witness=node.witness,
        )
        self._heart = channel("heart", on_connect=node.meet)
        self._errands = channel("errands", on_connect=node.meet)
        self._writers = [channel("writer", on_connect=node.meet) for _ in range(WRITERS)]
        self._turns = NodeTurns(self._errands, node=node.id)
        self._presence = NodeSessions(self._errands, node=node.id)
        self._acks = Acks(self._errands)
        self._answers = Answers(self._errands)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer = Writer(
            self._writers,
            epoch=lambda: node.epoch,
            witness=lambda: node.seq,
            confirm=confirm,
            now_ms=clock,
            on_append=self._appended,
            on_commit=on_commit,
        )

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        confirm: Confirm = "suspicious",
        clock: Callable[[], int],
        on_commit: OnCommit | None = None,
        on_time: Callable[[int], None] | None = None,
        node_url: str = "",
    ) -> Self:
        """Open a ledger to serve it, beside others that may serve it; create it if missing.

        While a commit waits for a standby that is not there, this waits too, and logs it;
        cancelling it ends that.

        Raises:
            LedgerError: It cannot be opened.
            LedgerUnavailableError: No server can be reached.
        """
        location = read_location(url)
        node_id = secrets.token_hex(4)
        name = f"pockyt-listener {node_id}"
        async with watched(location, name=name, tell=_log_waiting):
            identity = await identify(location, name=name, now_ms=clock())
            node = Node(
                node_id=node_id,
                url=node_url,
                version=__version__,
                epoch=identity.epoch,
                clock=clock,
            )
            if on_time is not None:
                node.on_time = on_time
            ledger = cls(
                channel=partial(_channel, location, name),
                node=node,
                secret=bytes.fromhex(identity.secret),
                confirm=confirm,
                clock=clock,
                on_commit=on_commit,
            )
            try:
                await ledger._start()
            except BaseException:
                # It never took anything, and its heartbeat may be what hangs.
                for each in ledger._channels():
                    each.drop()
                await ledger.close()
                raise
        return ledger

    async def _start(self) -> None:
        await self._heart.run(self.node.beat)
        await self._writer.check()
        head = await self.head()
        self.node.witness(head.seq, head.hash)
        self._publisher.begin(head.events)
        self._beside(run_heartbeat(self.node, self._heart))
        self._beside(self._publisher.run())
        self._beside(Watch(bell=self._bell_channel, channels=self._channels()).run())
        self._beside(run_renewal(self._turns))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def epoch(self) -> str:
        return self.node.epoch

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    async def check_writable(self) -> None:
        self.node.check()
        await self._writer.check()

    def listen(self, bell: Bell, *, follows: Follows = always, skip: Skip = ignore) -> None:
        self._listeners.append((bell, follows, skip))

    def on_epoch(self, hook: Callable[[], None]) -> None:
        self._epoch_hooks.append(hook)

    def _ring(self, events: Sequence[Event], heads: Mapping[str, int], left_out: int) -> None:
        for bell, _, skip in self._listeners:
            if left_out:
                skip(heads, left_out)
            bell(events)

    async def _meet_and_listen(self, db: Connection) -> None:
        await self.node.meet(db)
        await self._publisher.listen(db)

    def _leave_server(self) -> None:
        """Drop every connection: the old primary may live on, and its answers are outdated.

        The connection to the new server is being made, and stays.
        """
        for channel in self._channels():
            channel.drop()

    def _begin_epoch(self, number: int) -> None:
        """Forget all earlier positions: every follower begins again."""
        self._publisher.begin(number)
        for hook in self._epoch_hooks:
            try:
                hook()
            except Exception:  # noqa: BLE001 - a hook that fails is no reason to keep old positions
                _LOG.exception("epoch_hook_failed")

    def _appended(self, appended: Appended) -> None:
        self.node.witness(appended.seq, appended.hash)
        self._publisher.offer(appended.events)
        # Exactly one batch of all nodes has that entry.
        if appended.after < ANALYZE_ENTRIES <= appended.seq:
            self._beside(analyze(self._errands))

    def _channels(self) -> list[Channel]:
        others = (self._heart, self._errands, self._bell_channel)
        return [*self._readers.all, *self._searchers.all, *self._writers, *others]

    async def record(self, fact: Fact) -> Recorded:
        recorded: Recorded = await self._writer.submit(fact)
        return recorded

    def queue(self, fact: Fact, answer: Callable[[Recorded | Exception], None]) -> None:
        self._writer.queue(fact, answer)

    async def ack(
        self, *, terminal: str, stream: str, offset: int, epoch: str | None = None
    ) -> None:
        await self._acks.put(
            epoch=epoch or self.epoch,
            terminal=terminal,
            stream=stream,
            offset=offset,
            now_ms=self._clock(),
        )

    async def start(self, *, terminal: str, offsets: Mapping[str, int]) -> None:
        await self._acks.start(
            epoch=self.epoch, terminal=terminal, offsets=offsets, now_ms=self._clock()
        )

    async def remember(
        self, *, key_id: str, idempotency_key: str, request: str
    ) -> Remembered | None:
        return await self._answers.claim(
            key_id=key_id,
            idempotency_key=idempotency_key,
            request=request,
            now_ms=self._clock(),
        )

    async def remember_answer(
        self, *, key_id: str, idempotency_key: str, status: int, body: str
    ) -> None:
        await self._answers.keep(
            key_id=key_id, idempotency_key=idempotency_key, status=status, body=body
        )

    async def claim_turn(self, name: str) -> bool:
        return await self._turns.claim(packed(name))

    async def keep_turn(self, name: str, *, seconds: float) -> bool:
        return await self._turns.ensure(packed(name), seconds=seconds)

    async def release_turn(self, name: str) -> None:
        await self._turns.release(packed(name))

    async def announce(self, seats: Mapping[str, Seat]) -> frozenset[str]:
        return await self._presence.announce(seats)

    async def elsewhere(self) -> dict[str, int]:
        return await self._presence.elsewhere()

    async def nodes(self) -> list[NodeState]:
        return await self._read(partial(read_nodes, here=self.node.id))

    async def close(self) -> None:
        await self._writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            # A heartbeat that waits for a standby would keep this node from leaving for ever.
            async with asyncio.timeout(SILENT_SECONDS):
                await self._turns.leave()
                await self._presence.leave()
                await self._heart.run(self.node.leave)
        except (LedgerUnavailableError, TimeoutError) as error:
            cause = str(error) or "the server does not answer"
            log.event(_LOG, "not_signed_off", level=logging.WARNING, cause=cause)
        await asyncio.gather(*(channel.close() for channel in self._channels()))


def _channel(
    location: Location,
    name: str,
    purpose: str,
    *,
    on_connect: Callable[[Connection], Awaitable[None]] | None = None,
    timeout_ms: int | None = None,
) -> Channel:
    full_name = f"{name} {purpose}"
    return Channel(location, name=full_name, on_connect=on_connect, timeout_ms=timeout_ms)


def _log_waiting(text: str) -> None:
    log.event(_LOG, "waits_for_standby", level=logging.WARNING, cause=text)
