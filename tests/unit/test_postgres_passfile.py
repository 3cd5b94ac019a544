"""The password file of a ledger on PostgreSQL, written as libpq documents it."""

from pathlib import Path

import pytest

from listener.errors import LedgerError
from listener.storage.postgres.location import read_location
from listener.storage.postgres.passfile import password_for


def found(path: Path, text: str, *, mode: int = 0o600, host: str = "h1") -> str | None:
    """Return the password that a file with this text has for ``me`` at a host."""
    file = path / "passfile"
    file.write_bytes(text.encode())
    file.chmod(mode)
    return password_for(read_location(f"postgresql://me@h1/n?passfile={file}"), host, 5432)


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("h1:5432:n:me:plain", "plain"),
        (r"h1:5432:n:me:se\:c\\ret", r"se:c\ret"),
        ("h1:5432:n:me:se:cret", "se:cret"),
        ("# h1:5432:n:me:no\n\nh2:*:*:*:other\r\n*:*:*:me:first\r\n*:*:*:*:second\r\n", "first"),
        ("h1:5432:n:me: with blanks ", " with blanks "),
        ("h1:5432:n:you:other", None),
        ("h1:5432:n:me", None),
        ("", None),
    ],
)
def test_the_first_line_that_fits_has_the_password(
    tmp_path: Path, text: str, password: str | None
) -> None:
    assert found(tmp_path, text) == password


def test_a_socket_is_found_by_its_folder_and_as_localhost(tmp_path: Path) -> None:
    assert found(tmp_path, "/run/pg:5432:n:me:folder", host="/run/pg") == "folder"
    assert found(tmp_path, "localhost:*:n:me:local", host="/run/pg") == "local"
    assert found(tmp_path, "localhost:*:n:me:local") is None


def test_the_password_of_the_url_comes_first() -> None:
    location = read_location("postgresql://me:own@h1/n?passfile=/nowhere")
    assert password_for(location, "h1", 5432) == "own"


def test_a_file_that_cannot_be_used_is_told_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="its mode must be 600"):
        found(tmp_path, "*:*:*:*:hidden", mode=0o640)
    for path, why in (("/nowhere", "No such file"), (str(tmp_path), "Is a directory")):
        with pytest.raises(LedgerError, match=why):
            password_for(read_location(f"postgresql://me@h1/n?passfile={path}"), "h1", 5432)
