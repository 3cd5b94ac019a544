"""Who may come in: find the key of a request, check its role, and answer failures."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from listener.errors import ListenerError
from listener.keys import Key, KeyStore, Role, authenticate, pasted
from listener.pos.codes import KEY_HEADER
from listener.web.context import KEYS, SHARES
from listener.web.origins import preflight
from listener.web.problem import ProblemError, nothing_here, of_error, problem, unauthorized
from listener.web.sender import prove

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KeyedHandler = Callable[[web.Request, Key], Awaitable[web.StreamResponse]]

_LOG: Final = logging.getLogger(__name__)
_BEARER: Final = "bearer"


def guarded(handler: KeyedHandler, *roles: Role) -> Handler:
    """Wrap a handler of the API: it receives the key, and its errors become problems."""

    async def answer(request: web.Request) -> web.StreamResponse:
        key = await key_of(request, request.app[KEYS])
        if key is None:
            raise unauthorized()
        if key.role not in roles:
            wanted = " or ".join(roles)
            raise ProblemError(403, "wrong-role", f"this needs a key with the role {wanted}")
        request.app[SHARES].count_request(key.id)
        return await handler(request, key)

    return answering(answer)


def answering(handler: Handler) -> Handler:
    """Wrap a handler so that its errors become problems, and nothing else gets out."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ProblemError as error:
            return problem(error)
        except ListenerError as error:
            return problem(of_error(error))
        except web.HTTPError as error:
            code = error.reason.lower().replace(" ", "-")
            return problem(ProblemError(error.status, code, error.text or error.reason))
        except Exception:  # noqa: BLE001 - one faulty handler must not become an HTML page
            _LOG.exception("request_failed", extra={"fields": {"route": request.path[:200]}})
            return problem(ProblemError(500, "failed", "the listener failed; its log says how"))

    return answer


async def no_route(request: web.Request) -> web.Response:
    """Answer a request without a route: 405 if the path takes other methods, else 404.

    It also answers a browser that asks whether a page of another origin may send it.
    """
    own = request.match_info.route.resource
    taken: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not own:
            taken |= (await resource.resolve(request))[1]
    if taken:
        allow = ", ".join(sorted(taken))
        asked = preflight(request, methods=allow)
        if asked is not None:
            return asked
        raise ProblemError(
            405, "method-not-allowed", f"this takes {allow}", headers={"Allow": allow}
        )
    raise nothing_here()


def sent_key(request: web.Request) -> str | None:
    """Return the text of a request's key; None if there is none.

    Our own header wins: a proxy may have put a token of its own into Authorization.
    """
    own = pasted(request.headers.get(KEY_HEADER, ""))
    if own:
        return own
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return pasted(text) or None if scheme.lower() == _BEARER else None


async def check_again(request: web.Request) -> None:
    """Refuse a request that has waited, if its key was revoked meanwhile."""
    if await key_of(request, request.app[KEYS]) is None:
        raise unauthorized()


async def key_of(request: web.Request, keys: KeyStore) -> Key | None:
    """Return the key of a request; None if it has none that is valid."""
    text = sent_key(request)
    key = await authenticate(text, keys) if text else None
    if key is not None:
        prove(request)
    return key
