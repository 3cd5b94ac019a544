"""Take a notification in: verify, parse, record. What returns from here is on disk."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import orjson

from listener import log
from listener.errors import (
    LedgerUnavailableError,
    ListenerError,
    SignatureError,
    UnreadableError,
)
from listener.ledger.model import Alarm, Fact, Kind, fields_text
from listener.ledger.promise import Ledger, Recorded
from listener.ledger.status import read_word
from listener.pockyt import signature
from listener.pockyt.notification import fingerprint, read_fields, read_notification
from listener.pockyt.signature import Token
from listener.settings import Merchant

_LOG: Final = logging.getLogger(__name__)
_LOG_PAUSE_SECONDS: Final = 1.0


class Ingest:
    """The way of a notification into the ledger, for the merchants that are configured."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        merchants: Mapping[str, Merchant],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._tokens = {
            number: tuple(Token(token.get_secret_value()) for token in merchant.tokens)
            for number, merchant in merchants.items()
        }
        self._stores = {number: merchant.stores for number, merchant in merchants.items()}
        self._clock = clock
        self._refused = 0
        self._logged_at = -_LOG_PAUSE_SECONDS

    def knows(self, merchant_no: str) -> bool:
        """Tell whether a merchant is configured."""
        return merchant_no in self._tokens

    async def receive(
        self, *, merchant_no: str, store_no: str | None, content_type: str, body: bytes
    ) -> Recorded:
        """Record a notification; durable once this returns, and safe to receive again.

        ``store_no`` is the one in the notify URL. The merchant must be a configured one.

        Raises:
            UnreadableError: The body is not what its type says, or names a field twice.
            SignatureError: It is not signed with one of the merchant's tokens.
            LedgerUnavailableError: It was not recorded; Pockyt will send it again.
        """
        try:
            fields = read_fields(body, is_json=content_type == "application/json")
            if not signature.verify(fields, self._tokens[merchant_no]):
                raise SignatureError("verifySign is missing or wrong")
        except (UnreadableError, SignatureError) as error:
            self._refuse(merchant_no, error)
            raise
        known_store = self._store(merchant_no, store_no)
        fact = _fact(merchant_no, known_store, fields)
        recorded = await self._ledger.record(fact)
        if recorded.is_new and store_no and known_store is None:
            # The notification is on disk: it is acknowledged even if this is not.
            with suppress(LedgerUnavailableError):
                await self._raise_unknown_store(fact, store_no)
        return recorded

    def _store(self, merchant_no: str, store_no: str | None) -> str | None:
        """Return the store that a notify URL stands for, None where it names none we know."""
        stores = self._stores[merchant_no]
        if store_no is None:
            return stores[0] if len(stores) == 1 else None
        return store_no if store_no in stores else None

    async def _raise_unknown_store(self, fact: Fact, store_no: str) -> None:
        """Record that a notify URL names a store that nobody configured."""
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

    def _refuse(self, merchant_no: str, error: ListenerError) -> None:
        """Log a refusal, one line a second at most, so that a flood cannot fill the disk."""
        self._refused += 1
        now = self._clock()
        if now - self._logged_at < _LOG_PAUSE_SECONDS:
            return
        log.event(
            _LOG,
            "refused",
            level=logging.WARNING,
            merchantNo=merchant_no,
            reason=str(error),
            count=self._refused,
        )
        self._refused, self._logged_at = 0, now


def _fact(merchant_no: str, store_no: str | None, fields: dict[str, str]) -> Fact:
    """Word a verified notification as a fact."""
    said = read_notification(fields)
    digest = fingerprint(merchant_no, fields)
    del fields[signature.FIELD]
    return Fact(
        kind=Kind.NOTIFICATION,
        merchant_no=merchant_no,
        store_no=store_no,
        transaction_no=said.transaction_no,
        reference=said.reference,
        provider_status=said.word,
        says=read_word(said.word),
        amount=said.amount,
        currency=said.currency,
        settle_currency=said.settle_currency,
        suspect=said.suspect,
        fingerprint=digest,
        fields=orjson.dumps(fields).decode(),
    )
