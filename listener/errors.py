"""The errors of the listener, few and named for whose fault each one is.

``web/problem.py`` holds the one table from these to HTTP. Two clients that are used without the
service bring their own, which are errors of the listener as well: ``PockytError`` of
``pockyt/answer.py``, and ``StoppedError`` of ``pos/status.py``.
"""


class ListenerError(Exception):
    """Anything that the listener itself raises; its text says what to do."""


class SettingsError(ListenerError):
    """The operator's settings cannot be used."""


class UnreadableError(ListenerError):
    """A message is not what its type says: bad bytes, a repeated field, too many fields."""


class SignatureError(ListenerError):
    """A message is not signed, or not by a token we know."""


class LedgerError(ListenerError):
    """The ledger cannot be used as it is: not ours, too new, damaged."""


class DamagedError(LedgerError):
    """A ledger is not what was written: ``seq`` is the first entry that shows it, if one does."""

    def __init__(self, text: str, *, seq: int | None = None) -> None:
        """Make an error of what is wrong, and where."""
        super().__init__(text)
        self.seq = seq


class LedgerUnavailableError(ListenerError):
    """The ledger could not commit now; nothing was recorded, and recording again is safe."""


class OverloadedError(LedgerUnavailableError):
    """Too much is waiting to be committed; nothing was recorded."""


class SearchTooLongError(ListenerError):
    """A search took longer than a search may; a narrower one will do."""


class ReferenceTakenError(ListenerError):
    """An earlier sale of the store has this reference; ``transaction_no`` is its, if known."""

    def __init__(self, transaction_no: str | None = None) -> None:
        self.transaction_no = transaction_no
        super().__init__("a sale of this reference was started before; give a new reference")


class NumberTakenError(ListenerError):
    """A transaction number for a sale is another sale's, or another store's, already."""

    def __init__(self, transaction_no: str) -> None:
        self.transaction_no = transaction_no
        super().__init__(
            "Pockyt gave this sale a transaction number that belongs to another one;"
            " nothing was started here"
        )


class NotifyUrlMissingError(ListenerError):
    """A sale with a code to scan needs a notify URL, and the setting public_url is not there."""

    def __init__(self) -> None:
        super().__init__("the setting public_url is needed to start a sale with a vendor")


class OutcomeUnknownError(ListenerError):
    """Pockyt gave no answer; the listener finds out whether the sale was started."""

    def __init__(self) -> None:
        super().__init__(
            "Pockyt did not say whether the sale was started; repeat the request as it was,"
            " or start another with a new reference"
        )


class TooManyWishesError(ListenerError):
    """A key asks for more than its share; the same request is safe to repeat in a moment."""

    def __init__(self) -> None:
        super().__init__("this key asks for too much at once; send it again in a moment")


class SaleCancelledError(ListenerError):
    """A sale was cancelled before Pockyt gave it a number, so it is not started any more."""

    def __init__(self) -> None:
        super().__init__("the sale of this reference was cancelled; give a new reference")


class NotOpenError(ListenerError):
    """A transaction cannot be paid any more; ``status`` is what it has come to."""

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__(f"the transaction is not open any more: it is {status}")


class BeingCancelledError(ListenerError):
    """A transaction is being cancelled, so it cannot be paid here."""

    def __init__(self) -> None:
        super().__init__("the transaction is being cancelled; start a new sale")
