"""What the value of a setting may be: each type is checked, and brought into its normal form."""

from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, SecretStr, StringConstraints
from pydantic_core import PydanticCustomError
from yarl import URL

from listener.origin import PORT_MAX, read_origin

TOKEN_CHARS_MAX: Final = 256
URL_CHARS_MAX: Final = 2_048
HOST_CHARS_MAX: Final = 255

# A hyphen alone is no store's number: "200043/-" is the stream of what no store is known for.
NUMBER_PATTERN: Final = r"^([0-9A-Za-z_]|[0-9A-Za-z_-]{2,64})$"
_NAMES_A_HOST: Final = "names a host, such as https://pos.example.com"


def _wrong(text: str) -> PydanticCustomError:
    # Braces are pydantic's placeholders; every text here is our own and contains none.
    return PydanticCustomError("setting", text)


def _fault_of_url(text: str) -> str | None:
    """Return which rule of an http or https URL a text breaks; None if it breaks none."""
    if not text.lower().startswith(("http://", "https://")):
        return "begins with http:// or https://"
    if any(char.isspace() for char in text):
        return "has no blank in it"
    try:
        parts = urlsplit(text)
    except ValueError:
        return _NAMES_A_HOST
    try:
        is_port = parts.port != 0
    except ValueError:
        is_port = False
    if not is_port:
        return f"has a port from 1 to {PORT_MAX}, or none; an IPv6 address goes in brackets"
    return None if parts.hostname else _NAMES_A_HOST


def _check_url(text: str) -> str:
    """Return an http or https URL in its normal form, so that paths can be appended.

    It has no closing slash, its scheme and host are in lower case, and a name with letters
    beyond ASCII is in the form that DNS uses (``xn--…``).
    """
    fault = _fault_of_url(text)
    if fault is not None:
        raise _wrong(f"must be a URL that {fault}")
    parts = urlsplit(text)
    try:
        written = str(URL(text))
    except ValueError:
        raise _wrong(f"must be a URL that {_NAMES_A_HOST}") from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise _wrong("must be a URL without a user name, a query or a fragment")
    return written.rstrip("/")


def check_proxy(proxy: SecretStr) -> SecretStr:
    """Return the URL of a proxy; without a scheme it is an HTTP proxy, as in other programs."""
    text = proxy.get_secret_value()
    text = text if "://" in text else f"http://{text}"
    fault = _fault_of_url(text)
    if fault is not None:
        raise _wrong(f"must be the URL of a proxy that {fault}")
    if len(text) > URL_CHARS_MAX:
        raise _wrong(f"must have at most {URL_CHARS_MAX} characters")
    parts = urlsplit(text)
    try:
        # HTTP's basic authentication cannot carry others.
        unquote(f"{parts.username}{parts.password}").encode("latin-1")
    except ValueError:
        raise _wrong(
            "must be the URL of a proxy whose user and password are of Latin-1's characters"
        ) from None
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise _wrong("must be the URL of a proxy without a path")
    return SecretStr(text)


def _check_host(text: str) -> str:
    """Return the host to listen on; IPv6 may be in brackets, as in a URL."""
    if not text.isprintable():
        raise _wrong("must be one word")
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _check_origin(text: str) -> str:
    """Return an origin in the spelling in which origins are compared."""
    is_web = text.lower().startswith(("http://", "https://"))
    origin = read_origin(_check_url(text) if is_web else text)
    if origin is None:
        raise _wrong(
            "must be scheme and host only, such as https://till.example.com or"
            ' capacitor://localhost, or "null"'
        )
    return origin


def _check_database(text: str) -> str:
    for scheme in ("sqlite:///", "postgresql://", "postgres://"):
        if text.startswith(scheme) and len(text) > len(scheme) and text.isprintable():
            return text
    raise _wrong("must be sqlite:///PATH or postgresql://USER@HOST/NAME")


def _check_token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if not text or text != text.strip():
        raise _wrong("must not be blank, nor begin or end with a space")
    if not text.isprintable():
        raise _wrong("must be characters that can be printed")
    if len(text) > TOKEN_CHARS_MAX:
        raise _wrong(f"must have at most {TOKEN_CHARS_MAX} characters")
    return token


def _check_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise _wrong("must not name the same one twice")
    return values


# What Pockyt issues as merchantNo and storeNo: letters that are safe in our routes.
Number = Annotated[str, StringConstraints(pattern=NUMBER_PATTERN)]
Stores = Annotated[tuple[Number, ...], AfterValidator(_check_unique)]
Url = Annotated[str, StringConstraints(max_length=URL_CHARS_MAX), AfterValidator(_check_url)]
Origin = Annotated[str, StringConstraints(max_length=URL_CHARS_MAX), AfterValidator(_check_origin)]
Database = Annotated[
    str, StringConstraints(max_length=URL_CHARS_MAX), AfterValidator(_check_database)
]
Host = Annotated[
    str,
    StringConstraints(pattern=r"^\S+$", max_length=HOST_CHARS_MAX),
    AfterValidator(_check_host),
]
Proxy = Annotated[SecretStr, AfterValidator(check_proxy)]
Secret = Annotated[SecretStr, AfterValidator(_check_token)]
