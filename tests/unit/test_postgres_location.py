"""The setting ``database`` of a ledger on PostgreSQL, and text as PostgreSQL can hold it."""

import pytest

from listener.errors import LedgerError
from listener.storage.postgres.location import HOSTS_MAX, is_postgres, read_location
from listener.storage.postgres.texts import packed, unpacked


def test_hosts_are_tried_in_the_order_of_the_url_and_the_last_good_one_first() -> None:
    location = read_location("postgresql://me:p%40ss@h1:1,[::1]:2,h3/led%67er?sslmode=require")
    assert location.hosts == (("h1", 1), ("::1", 2), ("h3", 5432))
    assert (location.user, location.password) == ("me", "p@ss")
    assert location.database == "ledger"
    assert location.options == {"sslmode": "require"}
    location.last[:] = [("h3", 5432)]
    assert location.in_order == [("h3", 5432), ("h1", 1), ("::1", 2)]


def test_the_short_scheme_that_providers_write_means_the_same() -> None:
    assert is_postgres("postgres://h/n")
    assert read_location("postgres://me:pw@h/n") == read_location("postgresql://me:pw@h/n")


@pytest.mark.parametrize(
    ("rest", "written"), [("a/b@h/n", "%2F"), ("a?b@h/n", "%3F"), ("a#b@h/n", "%23")]
)
def test_a_password_that_is_not_escaped_is_told_how_to_be(rest: str, written: str) -> None:
    assert written in refused(rest)


def test_a_password_is_shown_nowhere() -> None:
    location = read_location("postgresql://me:hidden@h1/ledger")
    assert location.shown == "postgresql://h1:5432/ledger"
    assert "hidden" not in repr(location) + location.shown


def refused(rest: str) -> str:
    """Return what is said of a URL that cannot be read."""
    with pytest.raises(LedgerError) as error:
        read_location(f"postgresql://me:{rest}")
    return str(error.value)


def test_an_option_that_is_not_known_is_named_without_its_value() -> None:
    told = refused("pw@h/n?sslmode=require&sslmod=hidden&connect_timeout=3")
    assert "not known: connect_timeout, sslmod; known are passfile," in told
    assert "hidden" not in told


@pytest.mark.parametrize(
    "rest",
    [
        # A ? or # of the password that was not escaped, with a / before it.
        "a/b?hidden=c@h/n",
        "a/b?c&hidden=@h/n",
        "a/b#hidden@h/n",
        # Something else where an option belongs.
        "pw@h/n?hidden",
        "pw@h/n?hidden+=1",
        "pw@h/n?Hidden=1",
    ],
)
def test_nothing_is_named_that_may_be_a_password(rest: str) -> None:
    assert "hidden" not in refused(rest).lower()


def test_as_many_hosts_as_the_limit_are_read() -> None:
    hosts = ",".join(f"h{n}" for n in range(HOSTS_MAX))
    assert len(read_location(f"postgresql://{hosts}/ledger").hosts) == HOSTS_MAX


def test_a_file_is_not_on_postgresql() -> None:
    assert is_postgres("postgresql://h/n")
    assert not is_postgres("sqlite:///postgresql://h/n")


@pytest.mark.parametrize("text", ["", "a", "\0", "\x1a", "\x1a0", "a\0b\x1a\x1a1\0", "\x1a\0"])
def test_text_is_read_back_as_it_was(text: str) -> None:
    assert "\0" not in packed(text)
    assert unpacked(packed(text)) == text


def test_no_text_stays_none() -> None:
    assert packed(None) is None
    assert unpacked(None) is None


def test_two_texts_are_never_stored_alike() -> None:
    texts = ["\0", "\x1a", "\x1a0", "\x1a1", "0", "1", "\x1a\0"]
    assert len({packed(text) for text in texts}) == len(texts)
