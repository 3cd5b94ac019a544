"""`listener check` names what works and is unwise, and what lies open to others."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from listener.commands.hygiene import look_over
from listener.settings import load
from listener.storage.findings import Severity
from tests.support.commands import here
from tests.support.ports import free_port

# As long, and as mixed, as what Pockyt gives out.
REAL = "9b0c5f62d1e84a7fb3a6c2e07d95f418"
OTHER = "0e7d21c95b3f48a6917bc4d5f8e2a360"
PUBLISHED = "5cbfb079f15b150122261c8537086d77a"
WISE = {"LISTENER_PUBLIC_URL": "https://pos.example.com"}


def merchants(**tokens: list[str]) -> dict[str, str]:
    table = {number.strip("m"): {"tokens": texts} for number, texts in tokens.items()}
    return {"LISTENER_MERCHANTS": json.dumps(table)}


def noted(environ: Mapping[str, str], *, config: Path | None = None) -> dict[str, str]:
    """Return what is noted by its name, with all that is said of it."""
    findings = look_over(load(config, environ), config=config, environ=environ)
    return {found.name: f"{found.value} {found.advice}" for found in findings}


def test_settings_as_they_should_be_are_not_noted() -> None:
    assert noted(WISE | merchants(m7=[REAL, OTHER])) == {}


@pytest.mark.parametrize(
    "token",
    [
        "<API token>",
        "<new>",
        "current",
        "changeme",
        "CHANGE-ME-CHANGE-ME-CHANGE-ME",
        "your-pockyt-api-token-goes-here",
        "${POCKYT_TOKEN}",
        "x" * 32,
        "0123456789abcde",
        PUBLISHED,
    ],
)
def test_a_token_from_a_page_is_named_by_its_merchant_and_not_shown(token: str) -> None:
    found = noted(WISE | merchants(m7=[REAL, token], m8=[OTHER]))
    assert [*found] == ["token 7"]
    assert token not in found["token 7"]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_that_were_left_around_a_token_are_a_problem(quote: str) -> None:
    environ = WISE | merchants(m7=[OTHER, f"{quote}{REAL}{quote}"])
    (found,) = look_over(load(None, environ), config=None, environ=environ)
    assert (found.name, found.value, found.severity) == ("token 7", "quoted", Severity.PROBLEM)


def test_the_published_token_is_right_with_a_sandbox_on_this_machine() -> None:
    sandbox = {"LISTENER_POCKYT_URL": "http://127.0.0.1:8090"}
    assert noted(WISE | sandbox | merchants(m7=[PUBLISHED])) == {}
    assert [*noted(WISE | sandbox | merchants(m7=["<API token>"]))] == ["token 7"]


def test_merchants_with_one_token_are_named() -> None:
    found = noted(WISE | merchants(m7=[REAL], m8=[OTHER], m9=[OTHER, REAL]))
    assert [*found] == ["shared_token"]
    assert found["shared_token"].startswith("7, 8, 9 ")
    # Twice at one merchant is no harm.
    assert noted(WISE | merchants(m7=[REAL, REAL])) == {}


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"LISTENER_POCKYT_URL": "http://mapi.pockyt.io"}, ["pockyt_plain"]),
        ({"LISTENER_POCKYT_URL": "http://localhost:1"}, []),
        ({"LISTENER_PUBLIC_URL": "http://pos.example.com"}, ["public_url_plain"]),
        ({"LISTENER_PUBLIC_URL": "http://127.0.0.1:8080"}, []),
        ({"LISTENER_HOST": "0.0.0.0", "LISTENER_PUBLIC_URL": ""}, ["host"]),
        ({"LISTENER_HOST": "::", "LISTENER_PUBLIC_URL": "http://[::1]"}, ["host"]),
        ({"LISTENER_HOST": "10.0.0.1", "LISTENER_PUBLIC_URL": ""}, ["host"]),
        # There is a proxy that speaks TLS.
        ({"LISTENER_HOST": "0.0.0.0"}, []),
        ({"LISTENER_HOST": "127.0.0.7", "LISTENER_PUBLIC_URL": ""}, []),
        ({"LISTENER_HOST": "::1", "LISTENER_PUBLIC_URL": ""}, []),
        ({"LISTENER_PORT": "tcp://10.0.0.1:8080"}, ["service_links"]),
    ],
)
def test_settings_that_expose_the_service_are_reported(
    environ: dict[str, str], names: list[str]
) -> None:
    assert [*noted(WISE | environ | merchants(m7=[REAL]))] == names


@pytest.mark.parametrize(
    ("mode", "is_loose"), [(0o600, False), (0o640, False), (0o644, True), (0o660, True)]
)
def test_settings_with_tokens_that_others_may_read_are_noted(
    tmp_path: Path, mode: int, is_loose: bool
) -> None:
    config = tmp_path / "listener.toml"
    config.write_text(f'[merchants.7]\ntokens = ["{REAL}"]\n')
    config.chmod(mode)
    found = noted(WISE, config=config)
    assert [*found] == (["settings_mode"] if is_loose else [])
    if is_loose:
        assert found["settings_mode"].endswith(f"chmod 640 {config}")
    # Whose tokens come from the environment has no secret in the file.
    assert noted(WISE | merchants(m7=[OTHER]), config=config) == {}


def test_check_shows_the_notes_and_a_proxy_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "listener.toml"
    password = "hidden5cf371e7"
    config.write_text(
        f'port = 0\ndatabase = "sqlite:///{tmp_path}/ledger.db"\n'
        f'pockyt.proxy = "http://me:{password}@127.0.0.1:{free_port()}"\n'
        f'[merchants.7]\ntokens = ["<API token>"]\n'
    )
    done = here(capsys, "check", "--config", config, "--json")
    assert done.status == 0
    found = {one["name"]: one for one in json.loads(done.out)["findings"]}
    assert found["token 7"]["severity"] == found["settings_mode"]["severity"] == "note"
    assert found["pockyt"]["value"].startswith("https://mapi.pockyt.io through 127.0.0.1:")
    assert "no answer: Cannot connect" in found["pockyt"]["advice"]
    assert password not in done.out


async def test_check_says_when_the_proxy_does_not_connect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    monkeypatch.chdir(tmp_path)
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        environ = {"LISTENER_PORT": "0", **merchants(m7=[REAL])}
        environ["HTTPS_PROXY"] = f"http://me:hidden5cf371e7@127.0.0.1:{port}"
        for name, text in environ.items():
            monkeypatch.setenv(name, text)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("https_proxy", raising=False)
        done = await asyncio.to_thread(here, capsys, "check", "--json")
    assert "no answer: the proxy answered HTTP 407" in done.out
    assert "hidden5cf371e7" not in done.out + done.err
