"""Read what Pockyt answers to a call, and name whose fault it is where that cannot be done.

Source: Pockyt, "Cancel API", "Tran Query" and the page of each call.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from listener.errors import ListenerError
from listener.pockyt import signature
from listener.pockyt.texts import json_object, text, texts

MESSAGE_CHARS_MAX: Final = 200
ACCEPTED: Final = "000100"

# System and supplier errors: Pockyt itself does not say whether the call had an effect.
_OUTCOME_UNKNOWN: Final = frozenset({"000000", "000080"})
_BAD_SIGNATURE: Final = "verifysign"
# Whatever looks like a token, its digest or a signature is kept out of every error.
_SECRET_LIKE: Final = re.compile(r"[0-9A-Za-z]{32,}")

Reason = Literal["timeout", "connection", "status", "unreadable", "too_large", "overtaken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What Pockyt answered to a call it accepted; None is what it did not say.

    ``amount`` and the amounts in ``refunds`` (amount, status) are decimal text exactly as sent,
    be it a JSON string or number. ``word`` is ``status`` or ``transactionStatus`` as sent, None
    in the answer to create-trans-qrcode. ``fields`` is the whole ``result`` as text: nested
    values as compact JSON, nulls and any verifySign left out.
    """

    transaction_no: str | None = None
    reference: str | None = None
    amount: str | None = None
    currency: str | None = None
    settle_currency: str | None = None
    word: str | None = None
    qrcode_url: str | None = None
    deep_link: str | None = None
    refunds: tuple[tuple[str, str | None], ...] = ()
    refund_transaction_no: str | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class PockytError(ListenerError):
    """A call to Pockyt gave no answer to work with."""


class PockytRefusedError(PockytError):
    """Pockyt answered, and said no.

    ``outcome_unknown`` is true for a system or supplier error of Pockyt's: the call may have had
    an effect, and only tran-query can tell. A bad signature is never one of those.
    """

    def __init__(self, ret_code: str, ret_msg: str) -> None:
        self.ret_code = ret_code
        self.ret_msg = _SECRET_LIKE.sub("[hidden]", ret_msg.strip())[:MESSAGE_CHARS_MAX]
        self.outcome_unknown = (
            ret_code in _OUTCOME_UNKNOWN and _BAD_SIGNATURE not in ret_msg.lower()
        )
        super().__init__(f"Pockyt refused the call: {ret_code} {self.ret_msg}".rstrip())


class PockytUnavailableError(PockytError):
    """Pockyt gave no answer that can be read: it is down, slow, or something is in between.

    ``sent`` tells whether the request may have reached Pockyt, so that its outcome is unknown;
    where it is false nothing happened, and calling again is safe. ``reason`` is for metrics.
    """

    def __init__(self, message: str, *, reason: Reason, sent: bool = True) -> None:
        self.reason: Reason = reason
        self.sent = sent
        super().__init__(f"Pockyt is unavailable: {message}")


def read_answer(body: bytes) -> Answer:
    """Read the body of an answer, with whatever it adds, leaves out or spells differently.

    Raises:
        PockytRefusedError: It is a refusal.
        PockytUnavailableError: It is no answer of Pockyt's: HTML, half a JSON text.
    """
    answer = _parse(body)
    try:
        if answer is not None:
            return _read(answer)
    except RecursionError:
        pass
    # No cause is chained: its text would quote the answer.
    raise PockytUnavailableError("its answer cannot be read", reason="unreadable")


def is_answer(body: bytes) -> bool:
    """Tell whether a body is an answer of Pockyt's at all."""
    return _parse(body) is not None


def _parse(body: bytes) -> dict[str, object] | None:
    """Parse an answer; None where it is HTML, half a JSON text, or has no ret_code."""
    try:
        answer = json_object(body)
    except (ValueError, RecursionError):
        return None
    return answer if answer.get("ret_code") else None


def _read(answer: Mapping[str, object]) -> Answer:
    # A code written as a number has lost its leading zeros.
    code = (text(answer["ret_code"]) or "").strip().zfill(len(ACCEPTED))
    if code != ACCEPTED:
        raise PockytRefusedError(code, text(answer.get("ret_msg") or answer.get("retMsg")) or "")
    result = answer.get("result")
    return _answer(result if isinstance(result, dict) else {})


def _answer(result: Mapping[str, object]) -> Answer:
    fields = texts(result)
    fields.pop(signature.FIELD, None)
    return Answer(
        transaction_no=fields.get("transactionNo"),
        reference=fields.get("reference"),
        amount=fields.get("amount"),
        currency=fields.get("currency"),
        settle_currency=fields.get("settleCurrency"),
        word=fields.get("transactionStatus") or fields.get("status"),
        qrcode_url=fields.get("qrcodeUrl"),
        deep_link=fields.get("deepLink"),
        refunds=_refunds(result.get("refundInfo")),
        refund_transaction_no=fields.get("refundTransactionNo"),
        fields=MappingProxyType(fields),
    )


def _refunds(listed: object) -> tuple[tuple[str, str | None], ...]:
    """Read refundInfo, whose members' names are unpublished: the likely ones are tried."""
    refunds = []
    for refund in listed if isinstance(listed, list) else []:
        if not isinstance(refund, dict):
            continue
        amount = text(refund.get("refundAmount") or refund.get("amount"))
        status = text(refund.get("refundStatus") or refund.get("status"))
        if amount is not None:
            refunds.append((amount, status))
    return tuple(refunds)
