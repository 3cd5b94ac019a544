"""Name why a till's wish cannot be done; Pockyt's own refusals are ``PockytRefusedError``."""

from listener.errors import ListenerError
from listener.ledger.model import Transaction


class NotifyUrlMissingError(ListenerError):
    """A sale with a code to scan needs a notify URL, and the setting public_url is not there."""

    def __init__(self) -> None:
        super().__init__("the setting public_url is needed to start a sale with a vendor")


class OutcomeUnknownError(ListenerError):
    """Pockyt gave no answer; whether the sale was started is looked into."""

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
    """A transaction cannot be paid any more: it is ``transaction.status``."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        super().__init__(f"the transaction is not open any more: it is {transaction.status}")


class BeingCancelledError(ListenerError):
    """A transaction is being cancelled, so nobody may pay it here."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        super().__init__("the transaction is being cancelled; start a new sale")
