"""What is believed of a transaction, and the entries that it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

from listener.ledger.model import Evidence, Kind, Status

_EVIDENCE: Final = MappingProxyType(
    {
        Kind.NOTIFICATION: Evidence.SIGNATURE,
        Kind.ANSWER: Evidence.ANSWER,
        Kind.QUERY: Evidence.QUERY,
    }
)


@dataclass(frozen=True, slots=True)
class Voice:
    """An entry that counts, and as what; ``names`` are its values that others may contradict."""

    seq: int
    kind: Kind
    status: Status
    word: str | None
    names: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """What voices that say the same have in common; a summary keeps the newest of them."""
        return self.status, self.kind, self.names

    def weight(self) -> tuple[bool, bool, int]:
        """Return a sort key: of the voices that give the same status, the highest is shown."""
        # In a conflict the payment speaks, whichever came first: it is what has to be looked into.
        return self.status is Status.PAID, self.kind is Kind.ANSWER, self.seq

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Self:
        """Read a voice that a summary has stored."""
        return cls(
            seq=kept["seq"],
            kind=Kind(kept["kind"]),
            status=Status(kept["status"]),
            word=kept["word"],
            names=tuple(kept["names"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What a set of entries adds up to.

    Attributes:
        source: The entry that gives the status, None where none does: the query that settled it,
            else the best evidence, and of equals the newest.
        word: Pockyt's word for the status.
        horizon: The seq up to which a query or a decision has settled everything.
        held: Why a notification after that is not believed alone; None where all are.
        unread: Whether one after it has a word that we cannot read.
    """

    status: Status
    source: Voice | None
    word: str | None
    horizon: int
    held: str | None
    unread: bool

    @property
    def evidence(self) -> Evidence:
        """What the status rests on."""
        return _EVIDENCE.get(self.source.kind, Evidence.NONE) if self.source else Evidence.NONE

    @property
    def is_decided(self) -> bool:
        """Whether an operator has settled it."""
        return self.source is not None and self.source.kind is Kind.DECISION
