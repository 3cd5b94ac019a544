"""One route of the HTTP API: its handler, its parameters and its answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, cast

from aiohttp import web
from pydantic import BaseModel

from listener.keys import Role
from listener.web.guard import Handler, KeyedHandler, answering, guarded
from listener.web.problem import PROBLEM
from listener.web.reference.schemas import JsonObject
from listener.web.shapes.models import JSON, Problem

# For any key: the routes with more to say override this.
EVERY_ROLE: Final = tuple(Role)
BAD_QUERY: Final = "A parameter is unknown, comes twice, or is not what it must be."


class Tag(StrEnum):
    """The section that a route belongs to."""

    SALES = "Sell and cancel"
    FOLLOW = "Follow statuses"
    LEDGER = "Query the ledger"
    NOTIFY = "Receive from Pockyt"
    OPERATE = "Operate"
    DESCRIBE = "Describe"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSpec:
    """One answer: when it is given, and what it holds; ``schema`` if there is no model."""

    says: str
    model: type[BaseModel] | None = None
    media_types: tuple[str, ...] = (JSON,)
    schema: JsonObject | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    example: JsonObject | str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has no body."""
        return self.model is None and self.schema is None


@dataclass(frozen=True, slots=True, kw_only=True)
class BodySpec:
    """What a request holds, by media type."""

    model: type[BaseModel] | None = None
    media_types: tuple[str, ...] = (JSON,)
    schema: JsonObject | None = None
    is_required: bool = True
    example: JsonObject | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """One method of one path, and the handler that answers it.

    ``roles`` is empty if no key is needed; with roles, the handler receives the key. ``problems``
    says when each error is answered; those of a key, and of a ledger that cannot be used, are
    added to every operation that has them.
    """

    id: str
    method: str
    path: str
    tag: Tag
    summary: str
    says: str
    answers: Mapping[int, AnswerSpec]
    curl: str
    handler: Handler | KeyedHandler
    problems: Mapping[int, str] = field(default_factory=dict)
    roles: tuple[Role, ...] = ()
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: BodySpec | None = None
    uses_ledger: bool = True
    problem_models: Mapping[int, type[BaseModel]] = field(default_factory=dict)

    def route(self) -> web.RouteDef:
        """Build the route that calls the handler."""
        # A handler receives the key if, and only if, roles are named.
        if not self.roles:
            return web.route(self.method, self.path, answering(cast("Handler", self.handler)))
        keyed = guarded(cast("KeyedHandler", self.handler), *self.roles)
        return web.route(self.method, self.path, keyed)

    @property
    def path_names(self) -> list[str]:
        """The variable parts of the path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    def all_answers(self) -> dict[int, AnswerSpec]:
        """Return every answer, the problems included, by status."""
        problems = dict(self.problems)
        if 413 in problems:
            problems.setdefault(408, "The body did not arrive in time.")
        if self.roles:
            problems[401] = "No key, or one that is not known or was revoked."
        if self.roles and set(self.roles) != set(EVERY_ROLE):
            own = f"{problems[403]} Also: a" if 403 in problems else "A"
            problems[403] = f"{own} key of another role than {' or '.join(self.roles)}."
        if self.roles:
            problems[429] = "Too many requests with this key, or too many that wait."
        if self.uses_ledger:
            own = f"{problems[503]} Also: the" if 503 in problems else "The"
            problems[503] = f"{own} ledger cannot be used now; the same request is safe to repeat."
        answers = dict(self.answers)
        for status, says in problems.items():
            answers[status] = AnswerSpec(
                says=says,
                model=self.problem_models.get(status, Problem),
                media_types=(PROBLEM,),
                headers=_HEADERS.get(status, MappingProxyType({})),
            )
        return dict(sorted(answers.items()))


# All of them, for the pages that describe them.
DESCRIBED: web.AppKey[tuple[Operation, ...]] = web.AppKey("described")

_HEADERS: Final[Mapping[int, Mapping[str, str]]] = MappingProxyType(
    {
        401: {"WWW-Authenticate": "Bearer."},
        429: {"Retry-After": "Try again after this many seconds."},
        503: {"Retry-After": "Try again after this many seconds."},
    }
)
