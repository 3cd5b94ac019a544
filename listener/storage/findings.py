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


def note(name: str, value: str | int, advice: str) -> Finding:
    """Build a finding that an operator should know, but that stops nothing."""
    return Finding(name=name, value=value, severity=Severity.NOTE, advice=advice)


def problem(name: str, value: str | int, advice: str) -> Finding:
    """Build a finding that an operator must act on."""
    return Finding(name=name, value=value, severity=Severity.PROBLEM, advice=advice)
