"""Read a form that has the fields of one that verified before: one match in place of many steps.

The forms of a sender are alike: the same names in the same order, with values of plain characters.
For such a form this finds the fields and the signed text that :mod:`listener.pockyt.body` and
:mod:`listener.pockyt.signature` would find; they read every other form.
"""

import re
import time
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Final

from listener.pockyt import signature
from listener.pockyt.body import Fields

LAYOUTS_KEPT: Final = 8
NAMES_CHARS_MAX: Final = 1_024
# Learning one takes about 1 ms, and a captured message can be sent with its fields in any order.
LEARN_SECONDS: Final = 1.0

# No escape, no separator, and nothing that is trimmed. Possessive, so that no character is tried
# twice.
_VALUE: Final = "[!-$'-*,-~]++"
_FORM: Final = re.compile(rf"\w++={_VALUE}(?:&\w++={_VALUE})*+", re.ASCII)

# Reading it never fails; what is not ASCII is not plain.
_PLAIN: Final = "latin-1"

# The fields of a form, and the text of which its signature is still to be checked.
Form = tuple[Fields, bytes]


class Layout:
    """The names of a form's fields, in the order in which they arrive."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._matched = re.compile("&".join(f"{name}=({_VALUE})" for name in names)).fullmatch
        in_order = sorted(name for name in names if name != signature.FIELD)
        self._signed = "&".join(f"{name}=%s" for name in in_order)
        self._pick = itemgetter(*(names.index(name) for name in in_order))

    def read(self, text: str) -> Form | None:
        """Read a form; None if it has another layout."""
        found = self._matched(text)
        if found is None:
            return None
        values = found.groups()
        signed = (self._signed % self._pick(values)).encode()
        return Fields(dict(zip(self.names, values, strict=True)), "utf-8", True), signed


class Layouts:
    """The newest layouts of forms that verified."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: list[Layout] = []
        self._learns_at = clock()

    def read(self, body: bytes) -> Form | None:
        """Read a form; None if no known layout fits."""
        text = body.decode(_PLAIN)
        for layout in self._kept:
            if (form := layout.read(text)) is not None:
                return form
        return None

    def learn(self, body: bytes, fields: Mapping[str, str]) -> None:
        """Keep the layout of a form that verified, if it is plain, short and not kept yet."""
        names, now = tuple(fields), self._clock()
        if (
            now < self._learns_at
            # At least two names beside the signature's: for one, itemgetter returns no tuple.
            or len(names) < 3
            or sum(map(len, names)) > NAMES_CHARS_MAX
            or any(names == layout.names for layout in self._kept)
            or not _FORM.fullmatch(body.decode(_PLAIN))
        ):
            return
        self._learns_at = now + LEARN_SECONDS
        self._kept = [Layout(names), *self._kept][:LAYOUTS_KEPT]
