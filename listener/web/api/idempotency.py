"""Do a request once, however often it is sent under the same Idempotency-Key.

Source: IETF, "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header).
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from listener.errors import ListenerError
from listener.keys import Key
from listener.ledger.promise import Ledger
from listener.web.problem import PROBLEM, RETRY_SECONDS, ProblemError, problem
from listener.web.shapes.models import JSON

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"

_KEY: Final = re.compile(r"[!-~]{1,255}")

# Does the request; it is told whether it may have been begun before.
Work = Callable[[bool], Awaitable[web.Response]]


class Idempotency:
    """What is under way in this process; what was answered is in the ledger.

    A key that was claimed and never answered, and is not under way here, is left over from a
    listener that stopped in the middle, or had an answer that settled nothing (5xx). The request
    is then done again, and told so: a sale is taken up by its reference, and a cancel asks Pockyt
    before it does anything, so that neither is done twice.
    """

    def __init__(self) -> None:
        self._under_way: set[tuple[str, str]] = set()

    async def once(
        self,
        request: web.Request,
        key: Key,
        *,
        ledger: Ledger,
        work: Work,
        to_problem: Callable[[ListenerError], ProblemError],
    ) -> web.Response:
        """Do a request, or answer as the first time.

        Raises:
            ProblemError: The key is unusable (400), stands for another request (422), or its
                request is under way (409).
        """
        name = _name(request)
        if name is None:
            return await work(False)
        slot = (key.id, name)
        if slot in self._under_way:
            raise _under_way()
        self._under_way.add(slot)
        # Another node may be at it.
        turn = f"{HEADER}/{key.id}/{name}"
        try:
            if not await ledger.claim_turn(turn):
                raise _under_way()
            try:
                return await self._do(request, slot, ledger, work, to_problem)
            finally:
                await ledger.release_turn(turn)
        finally:
            self._under_way.discard(slot)

    async def _do(
        self,
        request: web.Request,
        slot: tuple[str, str],
        ledger: Ledger,
        work: Work,
        to_problem: Callable[[ListenerError], ProblemError],
    ) -> web.Response:
        """Do a request that nobody else is at, unless it was answered before."""
        key_id, name = slot
        digest = await _digest(request)
        kept = await ledger.remember(key_id=key_id, idempotency_key=name, request=digest)
        if kept is not None and kept.request != digest:
            raise ProblemError(
                422, "idempotency-key-reused", f"this {HEADER} stands for another request"
            )
        if kept is not None and kept.status is not None:
            return _replay(kept.status, kept.body or "")
        response = await _answer(work, to_problem, may_be_repeat=kept is not None)
        if response.status < 500:
            await ledger.remember_answer(
                key_id=key_id,
                idempotency_key=name,
                status=response.status,
                body=_text(response),
            )
        return response


def _under_way() -> ProblemError:
    return ProblemError(
        409,
        "under-way",
        f"the request of this {HEADER} is under way; send it again in a moment",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def _name(request: web.Request) -> str | None:
    """Return the Idempotency-Key of a request, None where it brings none."""
    name = request.headers.get(HEADER)
    if name is not None and not _KEY.fullmatch(name):
        raise ProblemError(
            400, "bad-idempotency-key", f"{HEADER} must be 1 to 255 visible ASCII characters"
        )
    return name


async def _answer(
    work: Work, to_problem: Callable[[ListenerError], ProblemError], *, may_be_repeat: bool
) -> web.Response:
    """Do the request; what it raises is an answer too, to be remembered as any other."""
    try:
        return await work(may_be_repeat)
    except ProblemError as error:
        return problem(error)
    except ListenerError as error:
        return problem(to_problem(error))


async def _digest(request: web.Request) -> str:
    head = f"{request.method} {request.path_qs}\n".encode()
    return hashlib.sha256(head + await request.read()).hexdigest()


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
