"""The errors of the listener, each named for whose fault it is.

``web/problem.py`` has the one table from these to HTTP. The two clients that can be used without
the service define their own: ``PockytError`` in ``pockyt/answer.py``, ``StoppedError`` in
``pos/status.py``.
"""


class ListenerError(Exception):
    """Any error that the listener itself raises; its text says what to do."""


class SettingsError(ListenerError):
    """The operator's settings cannot be used."""


class UnreadableError(ListenerError):
    """A message is not what its type says: bad bytes, a repeated field, too many fields."""


class SignatureError(ListenerError):
    """A message is not signed, or not with a token that we know."""


class LedgerError(ListenerError):
    """The ledger cannot be used as it is: not ours, too new, damaged."""


class NoLedgerError(LedgerError):
    """There is no ledger where one was looked for; the place is free for a new one."""


class DamagedError(LedgerError):
    """A ledger was changed; ``seq`` is the first entry that shows it, if any does."""

    def __init__(self, text: str, *, seq: int | None = None) -> None:
        """Build the error for what is wrong, and the entry that shows it."""
        super().__init__(text)
        self.seq = seq


class LedgerUnavailableError(ListenerError):
    """The ledger could not commit; nothing was recorded, and recording again is safe."""


class StoppedEarlyError(ListenerError):
    """The listener was told to stop while it still started."""

    def __init__(self) -> None:
        super().__init__("stopped before the ledger was open; nothing was received")


class OverloadedError(LedgerUnavailableError):
    """Too much is waiting to be committed; nothing was recorded."""


class SearchTooLongError(ListenerError):
    """A search took longer than is allowed; a narrower one will work."""

    def __init__(self) -> None:
        super().__init__("the search takes too long: name a store, or a shorter time")


class ReferenceTakenError(ListenerError):
    """An earlier sale of the store has this reference; ``transaction_no`` is its, if known."""

    def __init__(self, transaction_no: str | None = None) -> None:
        self.transaction_no = transaction_no
        super().__init__("a sale with this reference was started before; use a new reference")


class NumberTakenError(ListenerError):
    """Pockyt gave a sale the transaction number of another sale, or of another store.

    ``holder`` is the reference of the one that has the number, if it is known.
    """

    def __init__(self, transaction_no: str, *, holder: str | None = None) -> None:
        self.transaction_no = transaction_no
        self.holder = holder
        super().__init__(
            "Pockyt gave this sale a transaction number that belongs to another one;"
            " nothing was started here"
        )


class NotifyUrlMissingError(ListenerError):
    """A sale with a code to scan needs a notify URL, and public_url is not set."""

    def __init__(self) -> None:
        super().__init__("the setting public_url is needed to start a sale with a vendor")


class OutcomeUnknownError(ListenerError):
    """Pockyt gave no answer; the listener will find out whether the sale was started."""

    def __init__(self) -> None:
        super().__init__(
            "Pockyt did not say whether the sale was started; repeat the request as it was,"
            " or start another with a new reference"
        )


class TooManyWishesError(ListenerError):
    """A key uses more than its share; repeating the same request in a moment is safe."""

    def __init__(self) -> None:
        super().__init__("this key asks for too much at once; send it again in a moment")


class SaleCancelledError(ListenerError):
    """A sale's cancel was asked for before Pockyt gave it a number: it is not started any more."""

    def __init__(self) -> None:
        super().__init__(
            "the cancel of the sale with this reference was asked for, so it is not started again;"
            " GET /v1/sales?reference= shows what becomes of it; use a new reference for another"
        )


class NotOpenError(ListenerError):
    """A transaction can no longer be paid; ``status`` says why."""

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__(f"the transaction is not open any more: it is {status}")


class ChangedMeanwhileError(ListenerError):
    """An operator decided about an outdated state; ``status`` is the present one."""

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__(
            f"it has changed since you looked, and is {status} now: read its entries, and decide"
            " again"
        )


class BeingCancelledError(ListenerError):
    """A transaction is being cancelled, so it cannot be paid here."""

    def __init__(self) -> None:
        super().__init__("the transaction is being cancelled; start a new sale")


def let_go(error: BaseException | None) -> None:
    """Forget where an error came from, once it is handled.

    Its traceback holds frames, and often one of these holds the error: such a cycle, with all
    that a connection had, waits for the garbage collector.
    """
    if error is not None:
        error.__traceback__ = error.__context__ = error.__cause__ = None
