"""The names of what the sandbox does, so that a demo can print it as it happens."""

from collections.abc import Callable, Mapping
from enum import StrEnum

OnStep = Callable[[str, Mapping[str, str]], None]


class SandboxStep(StrEnum):
    """What happened; the words in brackets are the names in its detail.

    Source: Pockyt, the "Cancel API" tutorial, whose steps 4 to 6 are ``wallet.told``,
    ``wallet.cancelled`` with ``wallet.called-back``, and ``notification.sent``.
    """

    # A call was answered (call, merchantNo, transactionNo, retCode).
    CALLED = "called"
    # The customer paid (transactionNo).
    PAID = "paid"
    # A sale's time was up (transactionNo).
    EXPIRED = "expired"
    # Pockyt told the wallet server to abandon a sale (transactionNo).
    WALLET_TOLD = "wallet.told"
    # The wallet server cancelled it (transactionNo).
    WALLET_CANCELLED = "wallet.cancelled"
    # The wallet server gave Pockyt the cancellation status (transactionNo, status).
    WALLET_CALLED_BACK = "wallet.called-back"
    # The wallet server refused, or could not be reached until Pockyt gave up (transactionNo).
    WALLET_REFUSED = "wallet.refused"
    WALLET_UNREACHABLE = "wallet.unreachable"
    # One attempt to deliver a notification (transactionNo, status, attempt, url), and its answer
    # (the same, httpStatus, acknowledged).
    NOTIFICATION_SENT = "notification.sent"
    NOTIFICATION_ANSWERED = "notification.answered"
    # All attempts have failed (transactionNo, status); there is no room or no URL for another.
    NOTIFICATION_GIVEN_UP = "notification.given-up"
    NOTIFICATION_DROPPED = "notification.dropped"
    # A fault struck (fault).
    FAULT = "fault"


def say_nothing(name: str, detail: Mapping[str, str]) -> None:
    """Ignore a step."""
