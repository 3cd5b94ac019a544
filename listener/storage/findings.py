"""What `listener check` finds, in a ledger and around it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    FINE = "fine"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that an operator should know; ``advice`` is what to do about it, if anything."""

    name: str
    value: str | int
    severity: Severity = Severity.FINE
    advice: str | None = None
