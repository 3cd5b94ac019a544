"""Do a request once, however often it is sent under the same Idempotency-Key.

Source: IETF, "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header).
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from aiohttp import web

from listener.errors import ListenerError
from listener.keys import Key
from listener.web.context import LEDGER, LIFECYCLE
from listener.web.guard import KeyedHandler
from listener.web.problem import PROBLEM, RETRY_SECONDS, ProblemError, of_error, problem
from listener.web.shapes.bodies import plain_body
from listener.web.shapes.models import JSON
from listener.web.shapes.raw import read_raw

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"

_KEY: Final = re.compile(r"[!-~]{1,255}")

_Wish = TypeVar("_Wish")

# Reads what a request asks for. If it fails, its error is answered, but not remembered.
Read = Callable[[web.Request, Key], Awaitable[_Wish]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest(Generic[_Wish]):
    """A request that was read: what it asks for, and whether it may have been begun before."""

    app: web.Application
    key: Key
    wish: _Wish
    is_repeat: bool


Work = Callable[[ReadRequest[_Wish]], Awaitable[web.Response]]


class Idempotency:
    """The requests under way in this process; finished answers are in the ledger.

    A key that was claimed, never answered, and is not under way here is left over from a listener
    that stopped in the middle, or from an answer that settled nothing (5xx). Then the request is
    done again, as a repeat: a sale is resumed by its reference, and a payment or a cancel that may
    have been sent asks Pockyt before it does anything, so none is done twice.
    """

    def __init__(self) -> None:
        self._under_way: set[tuple[str, str]] = set()

    async def once(
        self, request: web.Request, key: Key, *, work: Callable[[bool], Awaitable[web.Response]]
    ) -> web.Response:
        """Do a request, or repeat the answer of the first time.

        Args:
            request: It may have an Idempotency-Key.
            key: Whose request it is.
            work: Does it; its argument is whether it may have been begun before.

        Raises:
            ProblemError: The key is unusable (400), was used for another request (422), or its
                request is under way (409).
        """
        name = _name(request)
        if name is None:
            return await work(False)
        slot = (key.id, name)
        if slot in self._under_way:
            raise _under_way()
        self._under_way.add(slot)
        # Another node may be working on it.
        turn = f"{HEADER}/{key.id}/{name}"
        try:
            ledger = request.app[LEDGER]
            if not await ledger.claim_turn(turn):
                raise _under_way()
            try:
                return await _remembered(request, key_id=key.id, name=name, work=work)
            finally:
                await ledger.release_turn(turn)
        finally:
            self._under_way.discard(slot)


def _under_way() -> ProblemError:
    return ProblemError(
        409,
        "under-way",
        f"the request of this {HEADER} is under way; send it again in a moment",
        members={"retry": True},
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


IDEMPOTENCY = web.AppKey("idempotency", Idempotency)


def idempotent(read: Read[_Wish]) -> Callable[[Work[_Wish]], KeyedHandler]:
    """Make a handler from ``read``, which reads a request, and the decorated work, done once."""

    def decorate(work: Work[_Wish]) -> KeyedHandler:
        async def answer(request: web.Request, key: Key) -> web.Response:
            app, wish = request.app, await read(request, key)

            async def do(is_repeat: bool) -> web.Response:
                return await work(ReadRequest(app=app, key=key, wish=wish, is_repeat=is_repeat))

            with app[LIFECYCLE].shares.of(key.id):
                return await app[IDEMPOTENCY].once(request, key, work=do)

        return answer

    return decorate


async def _remembered(
    request: web.Request, *, key_id: str, name: str, work: Callable[[bool], Awaitable[web.Response]]
) -> web.Response:
    """Do a request and remember its answer, or replay the remembered answer."""
    ledger = request.app[LEDGER]
    # The content counts, not how it is written: some serializers order the members of an object
    # anew each time, and gzip adds the time.
    head = f"{request.method} {request.path_qs}\n".encode()
    digest = hashlib.sha256(head + plain_body(await read_raw(request))).hexdigest()
    kept = await ledger.remember(key_id=key_id, idempotency_key=name, request=digest)
    if kept is not None and kept.request != digest:
        raise ProblemError(
            422, "idempotency-key-reused", f"this {HEADER} was used for another request"
        )
    if kept is not None and kept.status is not None:
        return _replay(kept.status, kept.body or "")
    try:
        response = await work(kept is not None)
    except ProblemError as error:
        response = problem(error)
    except ListenerError as error:
        # An error of the work is an answer too, and remembered like any other.
        response = problem(of_error(error))
    if response.status < 500:
        await ledger.remember_answer(
            key_id=key_id, idempotency_key=name, status=response.status, body=_text(response)
        )
    return response


def _name(request: web.Request) -> str | None:
    """Return the Idempotency-Key of a request; None if it has none."""
    names = {*request.headers.getall(HEADER, ())}
    if len(names) > 1:
        raise ProblemError(400, "bad-idempotency-key", f"{HEADER} must be given once")
    name = next(iter(names), None)
    if name is not None and not _KEY.fullmatch(name):
        raise ProblemError(
            400, "bad-idempotency-key", f"{HEADER} must be 1 to 255 visible ASCII characters"
        )
    return name


def _text(response: web.Response) -> str:
    body = response.body
    return body.decode() if isinstance(body, bytes) else ""


def _replay(status: int, body: str) -> web.Response:
    return web.Response(
        status=status,
        body=body.encode(),
        content_type=PROBLEM if status >= 400 else JSON,
        headers={REPLAYED: "true"},
    )
