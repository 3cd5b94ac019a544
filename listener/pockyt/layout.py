"""Read a form that has the fields of one that verified before: one match in place of many steps.

The forms of a sender are alike: the same names in the same order, with values of plain characters.
For such a form this finds the fields and the signed text that :mod:`listener.pockyt.body` and
:mod:`listener.pockyt.signature` would find; every other form is theirs.
"""

import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Final

from listener.pockyt import signature
from listener.pockyt.body import Fields

LAYOUTS_KEPT: Final = 4

_NAME: Final = re.compile(r"\w+", re.ASCII)
# No escape, no separator, and nothing that is trimmed.
_VALUE: Final = r"([!-$'-*,-~]+)"


# The fields of a form, and the text of which its signature is to be checked.
Signed = tuple[Fields, bytes]


class Layout:
    """The names of a form's fields, in the order in which they arrive."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._matched = re.compile("&".join(f"{name}={_VALUE}" for name in names)).fullmatch
        in_order = sorted(name for name in names if name != signature.FIELD)
        self._signed = "&".join(f"{name}=%s" for name in in_order)
        self._pick = itemgetter(*(names.index(name) for name in in_order))

    def read(self, text: str) -> Signed | None:
        """Read a form; None where it is not laid out like this."""
        found = self._matched(text)
        if found is None:
            return None
        values = found.groups()
        signed = (self._signed % self._pick(values)).encode()
        return Fields(dict(zip(self.names, values, strict=True)), "utf-8", is_plain=True), signed


class Layouts:
    """The newest layouts of forms that verified, so that strangers cannot teach any."""

    def __init__(self) -> None:
        self._kept: list[Layout] = []

    def read(self, body: bytes) -> Signed | None:
        """Read a form by a layout that is known; None where none of them is its own."""
        # Never fails; what is not ASCII is not plain.
        text = body.decode("latin-1")
        for layout in self._kept:
            if (form := layout.read(text)) is not None:
                return form
        return None

    def learn(self, fields: Mapping[str, str]) -> None:
        """Keep the layout of a form, if its names are plain and it is not kept yet."""
        names = tuple(fields)
        if any(names == layout.names for layout in self._kept):
            return
        # Two names beside the signature's, or more: of one, itemgetter makes no tuple.
        if len(names) > 2 and all(map(_NAME.fullmatch, names)):
            self._kept = [Layout(names), *self._kept][:LAYOUTS_KEPT]
