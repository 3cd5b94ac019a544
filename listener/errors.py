"""The errors of the listener, few and named for whose fault each one is."""


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
