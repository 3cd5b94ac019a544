"""Describe what pydantic found wrong with a value, without the value."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydantic_core import ErrorDetails

NO_WORDS: Final[Mapping[str, str]] = MappingProxyType({})


def explain(fault: ErrorDetails, words: Mapping[str, str] = NO_WORDS) -> str:
    """Describe what a value must be, in our own words where there are any; never what it was.

    Args:
        fault: One of the mistakes that pydantic found.
        words: By pydantic's name of the mistake; braces are filled in from its context.
    """
    ours = words.get(fault["type"])
    if ours is None:
        return fault["msg"].replace("Input should", "must")
    return ours.format_map(fault.get("ctx", {}))
