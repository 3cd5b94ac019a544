"""Which part of a ledger is read: a scope, a search within it, and where its last page ended."""

from typing import Final

from msgspec import Struct

from listener.ledger.model import CancelState, Status


class Scope(Struct, frozen=True, kw_only=True):
    """The merchant, store and terminal whose lines may be seen; None for all."""

    merchant_no: str | None = None
    store_no: str | None = None
    terminal: str | None = None

    def covers(self, name: str) -> bool:
        """Return whether this scope covers a stream, or a terminal by its full name."""
        merchant_no, _, rest = name.partition("/")
        if self.merchant_no not in (None, merchant_no):
            return False
        return self.store_no in (None, rest.partition("/")[0])


EVERYWHERE: Final = Scope()


class Search(Struct, frozen=True, kw_only=True):
    """Which transactions are searched for; None for all. Times are Unix ms, since ≤ t < until.

    ``contains`` is a part of the reference or of the transaction number, in any case.
    """

    scope: Scope
    status: Status | None = None
    cancel_state: CancelState | None = None
    held: bool | None = None
    reference: str | None = None
    contains: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


class Cursor(Struct, frozen=True, kw_only=True):
    """The last transaction of a page; pages go from the newest to the oldest."""

    created_at_ms: int
    first_seq: int
