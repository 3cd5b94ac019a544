"""Origins: two spellings of one are equal, and what is none is refused."""

import pytest

from listener.origin import meant_origins, read_origin


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://pos.example.com", "https://pos.example.com"),
        ("https://pos.example.com:443", "https://pos.example.com"),
        ("https://pos.example.com:", "https://pos.example.com"),
        ("https://pos.example.com:0443", "https://pos.example.com"),
        ("http://pos.example.com:80", "http://pos.example.com"),
        # Each scheme has its own port.
        ("http://pos.example.com:443", "http://pos.example.com:443"),
        ("https://pos.example.com:80", "https://pos.example.com:80"),
        ("HTTPS://POS.Example.COM", "https://pos.example.com"),
        ("https://pos.example.com/", "https://pos.example.com"),
        ("wss://pos.example.com:443", "https://pos.example.com"),
        ("ws://pos.example.com:8080", "http://pos.example.com:8080"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://h:65535", "http://h:65535"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("tauri://localhost", "tauri://localhost"),
        ("ionic://localhost:443", "ionic://localhost:443"),
        ("file://", "file://"),
        ("app://.", "app://."),
        ("chrome-extension://mdplmiioglkpgkgblf", "chrome-extension://mdplmiioglkpgkgblf"),
        ("null", "null"),
        ("Null", "null"),
    ],
)
def test_an_origin_has_one_spelling(text: str, origin: str) -> None:
    assert read_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "https://*.example.com",
        "pos.example.com",
        "https://",
        "http://:80",
        "https://h/path",
        "https://h?q",
        "https://h#f",
        "http://x@evil",
        "http://evil@x",
        "http://x.evil, http://x",
        "http://x\\.evil",
        "http://[x",
        "http://x:0",
        "http://x:65536",
        "http://x:123456",
        "http://x:8o",
        "http://x y",
        "http://x\n",
        "http://ｘ",
        "://x",
    ],
)
def test_an_invalid_origin_is_refused(text: str) -> None:
    assert read_origin(text) is None


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://h", ["https://h"]),
        ("wss://h/v1/pos/stream", ["https://h"]),
        ("ws://h:8080?x", ["http://h:8080"]),
        ("file:///android_asset/till.html", ["file://"]),
        ("h:443", ["http://h:443", "https://h"]),
        ("h", ["http://h", "https://h"]),
        ("[::1]:8080", ["http://[::1]:8080", "https://[::1]:8080"]),
        ("null", ["null"]),
        ("Null", ["null"]),
        ("", []),
        ("h/path", []),
        ("x@h/", []),
        ("https://x@h/", []),
        ("https://h/, https://x", []),
        ("https://h/ https://x", []),
        ("https:///h", []),
        ("https://x#?//h", ["https://x"]),
    ],
)
def test_what_a_program_may_mean_is_read_without_its_path_or_scheme(
    text: str, origins: list[str]
) -> None:
    assert meant_origins(text) == origins
