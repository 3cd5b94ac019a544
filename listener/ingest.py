"""Receive a notification: verify, parse, record. It is on disk once ``receive`` returns."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import orjson

from listener import log
from listener.errors import LedgerUnavailableError, ListenerError, SignatureError
from listener.ledger.model import NOTIFICATION, Alarm, Fact, Kind, Transaction, fields_text
from listener.ledger.promise import Ledger
from listener.ledger.results import Recorded
from listener.ledger.status import read_word
from listener.pockyt import signature
from listener.pockyt.body import Fields, readings
from listener.pockyt.layout import Layouts
from listener.pockyt.notification import read_notification
from listener.pockyt.signature import Token
from listener.settings import Merchant
from listener.suspects import AMBIGUOUS

_LOG: Final = logging.getLogger(__name__)


class Ingest:
    """Verifies and records the notifications of the configured merchants."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        merchants: Mapping[str, Merchant],
    ) -> None:
        self._ledger = ledger
        self._tokens = {
            number: tuple(Token(token.get_secret_value()) for token in merchant.tokens)
            for number, merchant in merchants.items()
        }
        self._stores = {number: merchant.stores for number, merchant in merchants.items()}
        self._layouts = Layouts()
        self._siblings = {number: _sharing_a_token(number, merchants) for number in merchants}

    def knows(self, merchant_no: str) -> bool:
        """Return whether a merchant is configured."""
        return merchant_no in self._tokens

    def is_alone(self, merchant_no: str) -> bool:
        """Return whether a merchant is configured and shares no token with another."""
        return self._siblings.get(merchant_no) == ()

    async def receive(
        self, *, merchant_no: str, store_no: str | None, is_json: bool, body: bytes
    ) -> Recorded:
        """Record a notification. It is durable once this returns; receiving it again is safe.

        ``store_no`` comes from the notify URL. The merchant must be configured.

        Raises:
            UnreadableError: The body is not a message, or names a field twice.
            SignatureError: It is not signed with one of the merchant's tokens.
            LedgerUnavailableError: It was not recorded; Pockyt will send it again.
        """
        fact, signed = self.read(
            merchant_no=merchant_no, store_no=store_no, is_json=is_json, body=body
        )
        if self._siblings[merchant_no]:
            known = await self._known_to_sharers(fact)
            owner = _with_a_sale(known, merchant_no)
            if owner is None:
                repeated = await self._find_among(known, fact, signed)
                if repeated is not None:
                    return repeated
            elif owner != merchant_no:
                # A recorded sale beats the URL, as it does for the store.
                with suppress(SignatureError):
                    fact, _ = self.read(
                        merchant_no=owner, store_no=None, is_json=is_json, body=body
                    )
                    store_no = None
                    _log_misrouted(merchant_no, owner)
        recorded = await self._ledger.record(fact)
        if recorded.is_new and store_no and fact.store_no is None:
            # The notification is on disk: it is acknowledged even if recording the alarm fails.
            with suppress(LedgerUnavailableError):
                await self._raise_unknown_store(fact, store_no)
        return recorded

    def read(
        self, *, merchant_no: str, store_no: str | None, is_json: bool, body: bytes
    ) -> tuple[Fact, bytes]:
        """Verify a body; return the fact that it states, and the text that was signed.

        Raises:
            UnreadableError: The body is not a message, or names a field twice.
            SignatureError: It is not signed with one of the merchant's tokens.
        """
        fields, signed = self._verified(self._tokens[merchant_no], is_json=is_json, body=body)
        return _fact(merchant_no, self._store(merchant_no, store_no), fields, signed), signed

    async def _known_to_sharers(self, fact: Fact) -> list[Transaction]:
        """Read the transactions with a number, of a merchant and those that share its token."""
        sharers = {fact.merchant_no, *self._siblings[fact.merchant_no]}
        found = await self._ledger.read_transaction(fact.transaction_no, merchant_no=None)
        return [one for one in found if one.merchant_no in sharers]

    async def _find_among(
        self, known: Iterable[Transaction], fact: Fact, signed: bytes
    ) -> Recorded | None:
        """Find the entry of the same message at another merchant.

        A notification names no merchant. If two merchants share a token, a message captured at one
        verifies at the other, and would create a transaction there that never happened.
        """
        for transaction in known:
            if transaction.merchant_no == fact.merchant_no:
                continue
            same = signature.fingerprint(transaction.merchant_no, signed)
            for line in await self._ledger.read_transaction_entries(transaction):
                if line.entry.fact.fingerprint == same:
                    return Recorded(seq=line.entry.seq, is_new=False)
        return None

    def _verified(
        self, tokens: Sequence[Token], *, is_json: bool, body: bytes
    ) -> tuple[Fields, bytes]:
        """Return the verified fields of a body, and the text that was signed.

        Raises:
            UnreadableError, SignatureError: What is wrong with the body, read as its type says.
        """
        if not is_json and (known := self._layouts.read(body)) is not None:
            plain, text = known
            given = plain.values[signature.FIELD].encode()
            if signature.signed_by(tokens, [text], given=given) is not None:
                return known
        faults: list[ListenerError] = []
        for fields in readings(body, is_json=is_json):
            if isinstance(fields, ListenerError):
                faults.append(fields)
                continue
            signed = signature.signed_text(fields.values, tokens, encoding=fields.encoding)
            if signed is not None:
                self._layouts.learn(body, fields.values)
                return fields, signed
            faults.append(fields.fault())
        try:
            raise faults[0]
        finally:
            # As in let_go: the error's traceback will hold this frame.
            del faults, fields

    def _store(self, merchant_no: str, store_no: str | None) -> str | None:
        """Return the store that a notify URL names; None where it names none that we know."""
        stores = self._stores[merchant_no]
        if store_no is None:
            return stores[0] if len(stores) == 1 else None
        return store_no if store_no in stores else None

    async def _raise_unknown_store(self, fact: Fact, store_no: str) -> None:
        """Record an alarm: a notify URL names a store that is not configured."""
        log.event(
            _LOG,
            "unknown_store",
            level=logging.WARNING,
            merchantNo=fact.merchant_no,
            storeNo=store_no,
        )
        await self._ledger.record(
            Fact(
                kind=Kind.ALARM,
                merchant_no=fact.merchant_no,
                transaction_no=fact.transaction_no,
                fields=fields_text({"alarm": Alarm.UNKNOWN_STORE, "storeNo": store_no}),
            )
        )


def _sharing_a_token(number: str, merchants: Mapping[str, Merchant]) -> tuple[str, ...]:
    """Return the other merchants that share a token with this one."""
    tokens = set(merchants[number].tokens)
    return tuple(
        other
        for other, merchant in merchants.items()
        if other != number and tokens & set(merchant.tokens)
    )


def _with_a_sale(known: Sequence[Transaction], merchant_no: str) -> str | None:
    """Return the merchant that has recorded the sale, this one first; None if none has."""
    sold = [one.merchant_no for one in known if one.sale_seq is not None]
    return merchant_no if merchant_no in sold else next(iter(sold), None)


def _log_misrouted(merchant_no: str, owner: str) -> None:
    log.event(_LOG, "misrouted", level=logging.WARNING, merchantNo=merchant_no, saleOf=owner)


def _fact(merchant_no: str, store_no: str | None, fields: Fields, signed: bytes) -> Fact:
    """Build the fact of a verified notification."""
    values = fields.values if fields.is_plain else fields.as_text()
    said = read_notification(values, is_plain=fields.is_plain)
    number = said.transaction_no
    if said.suspect == AMBIGUOUS and (not number or "&" in number):
        number = _number_in(signed)
    del values[signature.FIELD]
    return Fact(
        kind=NOTIFICATION,
        merchant_no=merchant_no,
        store_no=store_no,
        transaction_no=number,
        reference=said.reference,
        provider_status=said.word,
        says=read_word(said.word),
        amount=said.amount,
        currency=said.currency,
        settle_currency=said.settle_currency,
        suspect=said.suspect or (None if fields.is_plain else fields.suspect),
        fingerprint=signature.fingerprint(merchant_no, signed),
        fields=orjson.dumps(values).decode(),
    )


def _number_in(signed: bytes) -> str:
    """Find the transaction number in a signed text, however the text was cut into fields.

    A captured message that was cut into other fields is thus still recognised as a repeat.
    """
    pairs = {name: value for name, _, value in (one.partition(b"=") for one in signed.split(b"&"))}
    if pairs.get(b"invoiceId"):
        return ""
    number = pairs.get(b"transactionNo") or pairs.get(b"yuansferId") or b""
    return number.decode(errors="replace").replace("\0", "\ufffd").strip()
