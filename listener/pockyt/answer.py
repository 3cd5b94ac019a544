"""Read what Pockyt answers to a call; if that fails, name whose fault it is.

Source: Pockyt, "Cancel API", "Tran Query" and the page of each call.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from listener.errors import ListenerError
from listener.pockyt import signature
from listener.pockyt.texts import as_utf8, clean, json_object, text, texts
from listener.refusals import NOT_CARRIED_OUT

MESSAGE_CHARS_MAX: Final = 200
CODE_CHARS_MAX: Final = 16
NUMBER_CHARS_MAX: Final = 64
ACCEPTED: Final = "000100"

# Errors of its own system, unless the text below comes with them, and of its supplier's.
_SYSTEM_ERROR: Final = "000000"
_SUPPLIER_ERROR: Final = "000080"
_BAD_SIGNATURE: Final = "verifysign"
# Text that looks like a token, its digest or a signature is removed from every error.
_SECRET_LIKE: Final = re.compile(r"[0-9A-Za-z]{32,}")
HIDDEN: Final = "[hidden]"
# What looks like a secret but is none: numbers of a merchant's or of Pockyt's, links, and amounts
# with all decimals of a double.
_MAY_BE_LONG: Final = frozenset(
    {
        "transactionNo",
        "reference",
        "qrcodeUrl",
        "deepLink",
        "refundInfo",
        "refundTransactionNo",
        "refundReference",
        "amount",
        "refundAmount",
        "refundRmbAmount",
        "voidAmount",
        "tip",
    }
)

_ZERO_FRACTION: Final = re.compile(r"([0-9]+)\.0+")
# null, N/A, true, 0, -1, a list, an object, a double.
_NO_NUMBER: Final = re.compile(
    r"[^0-9]*|0+|[-+\[{].*|[0-9]*\.[0-9]*([eE].*)?|[0-9]+[eE][-+]?[0-9]+", re.DOTALL
)

Reason = Literal["timeout", "connection", "status", "unreadable", "too_large", "overtaken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Pockyt's answer to a call that it accepted; None is what it did not say, or left empty.

    Attributes:
        amount: Text as sent, whether it was a JSON string or number.
        word: ``status`` or ``transactionStatus`` as sent; None in the answer to
            create-trans-qrcode.
        transaction_no: '' if it cannot be one (see :func:`read_number`), has control characters or
            halves of a surrogate pair, or more than NUMBER_CHARS_MAX characters.
        fields: The whole ``result`` as text: nested values as compact JSON, without nulls and
            verifySign; control characters and halves of surrogate pairs replaced, secrets hidden.
    """

    transaction_no: str | None = None
    reference: str | None = None
    amount: str | None = None
    currency: str | None = None
    settle_currency: str | None = None
    word: str | None = None
    qrcode_url: str | None = None
    deep_link: str | None = None
    refund_transaction_no: str | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class PockytError(ListenerError):
    """A call to Pockyt gave no usable answer."""


class PockytRefusedError(PockytError):
    """Pockyt answered, and said no.

    ``outcome_unknown`` is true for a system or supplier error at Pockyt, and for a code that it
    does not document: the call may have had an effect, and only tran-query can tell. It is not true
    for a bad signature. ``is_its_fault`` is true for the first two alone.
    """

    def __init__(self, ret_code: str, ret_msg: str) -> None:
        self.ret_code = clean(ret_code[:CODE_CHARS_MAX])
        # Hidden before the text is cut, so that no half of a secret is left.
        self.ret_msg = clean(_SECRET_LIKE.sub(HIDDEN, ret_msg.strip()))[:MESSAGE_CHARS_MAX]
        is_unsigned = ret_code == _SYSTEM_ERROR and _BAD_SIGNATURE in ret_msg.lower()
        self.outcome_unknown = ret_code not in NOT_CARRIED_OUT and not is_unsigned
        self.is_its_fault = self.outcome_unknown and ret_code in (_SYSTEM_ERROR, _SUPPLIER_ERROR)
        super().__init__(f"Pockyt refused the call: {self.ret_code} {self.ret_msg}".rstrip())


class PockytUnavailableError(PockytError):
    """Pockyt gave no readable answer: it is down, slow, or something is in between.

    ``sent`` is whether the request may have reached Pockyt, so that its outcome is unknown; if it
    is false, nothing happened and calling again is safe. ``reason`` is for metrics.
    """

    def __init__(self, message: str, *, reason: Reason, sent: bool = True) -> None:
        self.reason: Reason = reason
        self.sent = sent
        super().__init__(f"Pockyt is unavailable: {message}")


def read_answer(body: bytes, *, hide: Callable[[str], str] = str) -> Answer:
    """Read the body of an answer, tolerating additions, omissions and other spellings.

    Args:
        body: What arrived.
        hide: Replaces the secrets of the call where an answer quotes one.

    Raises:
        PockytRefusedError: It is a refusal.
        PockytUnavailableError: It is not an answer of Pockyt's: HTML, half a JSON text.
    """
    answer = _parse(body)
    try:
        if answer is not None:
            return _read(answer, hide)
    except RecursionError:
        pass
    # The cause is not chained: its text would quote the answer.
    raise PockytUnavailableError("its answer cannot be read", reason="unreadable")


def read_number(text: str) -> str:
    """Read a transaction number; '' where the text cannot be one.

    A JSON number with a point or an exponent is a double, which has lost digits of a number as
    long as Pockyt's, so that two sales may have the same; only ``.0`` after all digits is harmless.
    """
    number = text.strip()
    if found := _ZERO_FRACTION.fullmatch(number):
        number = found[1]
    return "" if _NO_NUMBER.fullmatch(number) else number


def is_answer(body: bytes) -> bool:
    """Return whether a body is an answer of Pockyt's."""
    return _parse(body) is not None


def _parse(body: bytes) -> dict[str, object] | None:
    """Parse an answer; None where it is HTML, half a JSON text, or has no ret_code."""
    try:
        # A wallet's own words may come in GBK, as they do in notifications.
        answer = json_object(as_utf8(body)[0])
    except (ValueError, RecursionError):
        return None
    return answer if answer.get("ret_code") else None


def _read(answer: Mapping[str, object], hide: Callable[[str], str]) -> Answer:
    # A code written as a number has lost its leading zeros.
    code = (text(answer["ret_code"]) or "").strip().zfill(len(ACCEPTED))
    if code != ACCEPTED:
        message = text(answer.get("ret_msg") or answer.get("retMsg")) or ""
        raise PockytRefusedError(hide(code), hide(message))
    result = answer.get("result")
    said = texts(result if isinstance(result, dict) else {})
    said.pop(signature.FIELD, None)
    fields = dict(_shown(name, value, hide) for name, value in said.items())
    # Some libraries write a null as "".
    named = {name: value for name, value in fields.items() if value.strip()}
    number = named.get("transactionNo")
    if number is not None:
        is_fit = number == said["transactionNo"] and len(number) <= NUMBER_CHARS_MAX
        number = read_number(number) if is_fit else ""
    return Answer(
        transaction_no=number,
        reference=named.get("reference"),
        amount=named.get("amount"),
        currency=named.get("currency"),
        settle_currency=named.get("settleCurrency"),
        word=named.get("transactionStatus") or named.get("status"),
        qrcode_url=named.get("qrcodeUrl"),
        deep_link=named.get("deepLink"),
        refund_transaction_no=named.get("refundTransactionNo"),
        fields=MappingProxyType(fields),
    )


def _shown(name: str, value: str, hide: Callable[[str], str]) -> tuple[str, str]:
    """Return a member in a form that is safe to store and show."""
    shown = hide(value)
    if name not in _MAY_BE_LONG:
        shown = _SECRET_LIKE.sub(HIDDEN, shown)
    return clean(_SECRET_LIKE.sub(HIDDEN, hide(name))), clean(shown)
