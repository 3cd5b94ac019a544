"""Keys: who may see and do what, and how a key's text is made and checked."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from listener.ledger.model import EVERY_STREAM, NO_STORE, stream_of
from listener.ledger.scope import Scope
from listener.setting_types import NUMBER_PATTERN

KEY_CHARS_MAX: Final = 128
TERMINAL_CHARS_MAX: Final = 64

_PREFIX: Final = "lk"
# With a slash, two scopes could share a subscriber's name.
_NUMBER: Final = re.compile(NUMBER_PATTERN)
_TERMINAL: Final = re.compile(f"[^/]{{1,{TERMINAL_CHARS_MAX}}}")


class Role(StrEnum):
    """What a key is for."""

    POS = "pos"
    LEDGER = "ledger"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is stored: the hash of its secret part, its role and its scope."""

    id: str
    hash: str
    role: Role
    merchant_no: str | None = None
    store_no: str | None = None
    terminal: str | None = None
    may_refund: bool = False
    created_at_ms: int = 0
    revoked_at_ms: int | None = None

    @property
    def scope(self) -> Scope:
        """What the key may see: the lines of its merchant, or of its store, for a till too."""
        return Scope(merchant_no=self.merchant_no, store_no=self.store_no)

    @property
    def subscriber(self) -> str:
        """The name that acknowledgements are stored under: the terminal's, else the key's own."""
        if self.terminal:
            return f"{stream_of(self.merchant_no or NO_STORE, self.store_no)}/{self.terminal}"
        return f"key:{self.id}"

    def may_follow(self, stream: str) -> bool:
        """Return whether the key may follow a stream."""
        if self.role is Role.ADMIN and self.merchant_no is None:
            return True
        merchant_no, _, store_no = stream.partition("/")
        if merchant_no != self.merchant_no:
            return False
        return self.store_no is None or store_no == self.store_no

    def streams(self, stores: Sequence[str]) -> list[str]:
        """Return the streams that the key covers; ``stores`` are those of its merchant."""
        if self.merchant_no is None:
            return [EVERY_STREAM]
        if self.store_no is not None:
            return [stream_of(self.merchant_no, self.store_no)]
        return [stream_of(self.merchant_no, store_no) for store_no in (*stores, None)]


class KeyStore(Protocol):
    """Where keys are kept."""

    async def find_key(self, key_id: str) -> Key | None:
        """Return a key by its id, revoked or not."""

    async def keys_version(self) -> int:
        """Return a number that grows with every change of a key."""

    async def revoked_keys(self) -> frozenset[str]:
        """Return the ids of the keys that were revoked."""


def mint(
    *,
    role: Role,
    now_ms: int,
    merchant_no: str | None = None,
    store_no: str | None = None,
    terminal: str | None = None,
    may_refund: bool = False,
) -> tuple[Key, str]:
    """Make a key. Its text is returned beside it and stored nowhere.

    Raises:
        ValueError: The scope does not fit the role; the text says why.
    """
    if role is Role.POS and not merchant_no:
        raise ValueError("a pos key needs a merchant")
    if store_no and not merchant_no:
        raise ValueError("a store needs its merchant")
    if terminal and role is not Role.POS:
        raise ValueError("a terminal needs the role pos")
    if may_refund and role is not Role.POS:
        raise ValueError("only a pos key can refund")
    named = (merchant_no, None if store_no == NO_STORE else store_no)
    if any(number and not _NUMBER.fullmatch(number) for number in named):
        raise ValueError("a merchant or store is at most 64 letters, digits, - and _")
    if terminal is not None and not _is_name(terminal):
        raise ValueError(
            f"a terminal is 1 to {TERMINAL_CHARS_MAX} printable characters without /, not all blank"
        )
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = Key(
        id=key_id,
        hash=_hash(secret),
        role=role,
        merchant_no=merchant_no or None,
        store_no=store_no or None,
        terminal=terminal,
        may_refund=may_refund,
        created_at_ms=now_ms,
    )
    return key, f"{_PREFIX}_{key_id}_{secret}"


def pasted(text: str) -> str:
    """Return the text of a key without what its file has added to it.

    Those are blanks, line breaks, and the byte order mark that PowerShell puts in front.
    """
    return text.strip().removeprefix("\ufeff").strip()


async def authenticate(text: str, store: KeyStore) -> Key | None:
    """Return the key with this text; None where it is unknown, wrong or revoked."""
    # A text that is not ASCII is not a key, and may hold bytes that no ledger can look up.
    if not text.isascii():
        return None
    prefix, _, rest = text[:KEY_CHARS_MAX].partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != _PREFIX or not key_id or not secret:
        return None
    key = await store.find_key(key_id)
    if key is None or key.revoked_at_ms is not None:
        return None
    return key if hmac.compare_digest(key.hash, _hash(secret)) else None


def _is_name(terminal: str) -> bool:
    """Return whether a terminal's name is safe to show in a list, a log or an acknowledgement."""
    return bool(_TERMINAL.fullmatch(terminal) and terminal.isprintable() and terminal.strip())


def _hash(secret: str) -> str:
    # The secret is 256 random bits: a slow hash would protect it no better than a fast one.
    return hashlib.sha256(secret.encode()).hexdigest()
