"""Read the body of a notification into its fields, exactly as they were signed.

Anybody who knows the URL can send a body, so everything is counted before it is split or walked.

Source: Pockyt, "Webhook Notification Format" and "Signing API Calls".
"""

import re
from binascii import a2b_qp
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from listener.errors import ListenerError, SignatureError, UnreadableError
from listener.pockyt import signature
from listener.pockyt.texts import as_utf8, json_fields, json_source_fields

FIELDS_MAX: Final = 64
# In a form: pairs may be empty, as in "a=1&&b=2".
SEPARATORS_MAX: Final = 2 * FIELDS_MAX
# In a form: escapes, some of which may be incomplete ("100%").
TORN_MAX: Final = 256
# In JSON: values, however deeply nested.
NODES_MAX: Final = 256

# Why a message is held if its text had to be guessed.
NOT_UTF8: Final = "not_utf8"

_BOM: Final = b"\xef\xbb\xbf"
_SIGNATURE: Final = signature.FIELD.encode()
# The longest way to write the signature's name, with each letter escaped.
_SIGNATURE_BYTES_MAX: Final = 3 * len(_SIGNATURE)
_TORN: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# A string, ended or not, is one token, so that nothing inside it is counted.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{},]', re.DOTALL)


class Fields(Struct, frozen=True):
    """The fields of a message. ``encoding`` turns their text back into the signed bytes.

    In a form that is not UTF-8, each byte is one character of the texts (``latin-1``).
    ``is_plain``: no name or value has an ``&``, an escape or a NUL, and no name an ``=``; set by
    ``layout``.
    """

    values: dict[str, str]
    encoding: str
    is_plain: bool = False

    @property
    def suspect(self) -> str | None:
        """Why the fields are not believed although they are signed; None where they are."""
        return None if self.encoding == "utf-8" else NOT_UTF8

    def as_text(self, *, errors: str = "replace") -> dict[str, str]:
        """Return the fields as they are stored; what is not UTF-8 is read as GB18030."""
        if self.encoding == "utf-8":
            return self.values

        def text(octets: str) -> str:
            return octets.encode(self.encoding).decode("gb18030", errors)

        return {text(name): text(value) for name, value in self.values.items()}

    def fault(self) -> ListenerError:
        """Return the error for fields that no token signed."""
        try:
            self.as_text(errors="strict")
        except UnicodeError:
            return _not_text()
        return signature.missing()


def readings(body: bytes, *, is_json: bool) -> Iterator[Fields | ListenerError]:
    """Read a body in every possible way, beginning with the one that its type says.

    Bodies arrive with the wrong type, after a byte order mark, or between line breaks that nobody
    signed; JSON also as the name of a form's only field. A way that fails yields its
    UnreadableError or SignatureError.
    """
    first, second = (read_json, read_form) if is_json else (read_form, read_json)
    yield _tried(first, body)
    trimmed = body.removeprefix(_BOM).strip(signature.LINE_BREAKS.encode())
    if trimmed != body:
        yield _tried(read_form, trimmed)
    yield _tried(second, body)
    if trimmed.endswith(b"=") and trimmed[:1] in (b"{", b"%"):
        yield _tried(read_json_name, trimmed)
    if b"\\" in body:
        yield _tried(read_json_source, body)


def _tried(read: Callable[[bytes], Fields], body: bytes) -> Fields | ListenerError:
    try:
        return read(body)
    except (UnreadableError, SignatureError) as error:
        return error


def read_form(body: bytes) -> Fields:
    """Read a form.

    Raises:
        UnreadableError: A repeated field, or more than FIELDS_MAX.
        SignatureError: No field is verifySign; nothing was decoded.
    """
    if body.count(b"&") > SEPARATORS_MAX:
        raise _too_many()
    parts = [part for part in body.split(b"&") if part]
    if len(parts) > FIELDS_MAX:
        raise _too_many()
    if _SIGNATURE not in body and not any(map(_is_signature, parts)):
        raise _unsigned(body, parts)
    pairs = [part.partition(b"=") for part in parts]
    if b"%" in body or b"+" in body:
        decode = _decoder(body)
        pairs = [(decode(name), sign, decode(value)) for name, sign, value in pairs]
    encoding = "utf-8"
    try:
        fields = {name.decode(): value.decode() for name, _, value in pairs}
    except UnicodeError:
        encoding = "latin-1"
        fields = {name.decode(encoding): value.decode(encoding) for name, _, value in pairs}
    if len(fields) < len(parts):
        raise _repeated()
    return Fields(_without_hiding(fields), encoding)


def read_json_name(body: bytes) -> Fields:
    """Read a JSON object that a writer of forms took for the name of a field: ``%7B%22a%22…%7D=``.

    Raises:
        UnreadableError, SignatureError: As by ``read_json``.
    """
    name = body.removesuffix(b"=")
    return read_json(_decoder(name)(name) if name.startswith(b"%") else name)


def read_json_source(body: bytes) -> Fields:
    """Read a JSON object as ``read_json`` does, the escapes in nested values as they were sent."""
    return read_json(body, json_source_fields)


def read_json(body: bytes, read_fields: Callable[[bytes], dict[str, str]] = json_fields) -> Fields:
    """Read a JSON object; nulls are left out, nested values are compact JSON text.

    Raises:
        UnreadableError: Not a JSON object, a repeated field, or more than the limits allow.
        SignatureError: No field is verifySign.
    """
    if not body.removeprefix(_BOM).lstrip().startswith(b"{"):
        raise UnreadableError("the body is not a JSON object")
    try:
        text, encoding = _as_utf8(body)
        _check_size(text)
        fields = read_fields(text)
        if encoding != "utf-8":
            fields = _octets(fields, encoding)
    except UnicodeError:
        raise _not_text() from None
    except ValueError as error:
        raise UnreadableError(f"the body cannot be read: {error}") from None
    if len(fields) > FIELDS_MAX:
        raise _too_many()
    if signature.FIELD not in fields:
        raise _not_text() if encoding == "latin-1" else signature.missing()
    return Fields(_without_hiding(fields), "utf-8" if encoding == "utf-8" else "latin-1")


def _as_utf8(body: bytes) -> tuple[bytes, str]:
    """Return a text as UTF-8, and its encoding; of an unknown one each byte is a character."""
    try:
        return as_utf8(body)
    except UnicodeError:
        return body.removeprefix(_BOM).decode("latin-1").encode(), "latin-1"


def _octets(fields: dict[str, str], encoding: str) -> dict[str, str]:
    """Return fields with one character for each byte that they had in an encoding."""

    def octets(text: str) -> str:
        return text.encode(encoding).decode("latin-1")

    return {octets(name): octets(value) for name, value in fields.items()}


def _too_many() -> UnreadableError:
    return UnreadableError(f"the body has more than {FIELDS_MAX} fields")


def _repeated() -> UnreadableError:
    return UnreadableError("the body names a field twice")


def _unsigned(body: bytes, parts: list[bytes]) -> ListenerError:
    """Return the error for a form without a signature, as far as it shows without decoding."""
    if len({part.partition(b"=")[0] for part in parts}) < len(parts):
        return _repeated()
    try:
        as_utf8(body)
    except UnicodeError:
        return _not_text()
    return signature.missing()


def _is_signature(part: bytes) -> bool:
    """Return whether a pair's name is verifySign with some of its letters escaped."""
    name = part.partition(b"=")[0]
    return (
        len(name) <= _SIGNATURE_BYTES_MAX and b"%" in name and unquote_to_bytes(name) == _SIGNATURE
    )


def _decoder(body: bytes) -> Callable[[bytes], bytes]:
    """Return the function that decodes a form's texts; with many escapes all must be complete."""
    if body.count(b"%") <= TORN_MAX:
        return _decode
    if _TORN.search(body):
        raise UnreadableError("the body has a torn escape")
    return _decode_many


def _decode(text: bytes) -> bytes:
    """Decode ``%XX`` and ``+``; any other ``%`` stays as it is."""
    return unquote_to_bytes(text.replace(b"+", b" "))


def _decode_many(text: bytes) -> bytes:
    """Decode a text of complete escapes: as quoted-printable, at a hundredth of the cost."""
    return a2b_qp(text.replace(b"+", b" ").replace(b"=", b"%3D").replace(b"%", b"="))


def _without_hiding(fields: dict[str, str]) -> dict[str, str]:
    """Leave out empty fields that can be added unseen, or that hide a neighbour."""
    names = "".join(fields)
    if "&" not in names and "=" not in names:
        return fields
    return {n: value for n, value in fields.items() if value or not ("&" in n or "=" in n)}


def _not_text() -> UnreadableError:
    return UnreadableError("the body is neither UTF-8 nor GB18030 text")


def _check_size(text: bytes) -> None:
    """Raise ValueError if JSON has too many values; how deeply they may nest is for ``texts``."""
    nodes = 0
    for count, token in enumerate(_TOKEN.finditer(text)):
        nodes += text[token.start()] in b"[{,"
        # Each value brings at most two strings and its bracket; a text with more is not JSON.
        if nodes > NODES_MAX or count > 4 * NODES_MAX:
            raise ValueError("too many values")
