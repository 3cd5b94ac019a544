"""Why a client is not live: who failed, or who answered in the listener's place."""

import ssl
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson
import pytest

from listener.pos.causes import (
    SHOWN_CHARS_MAX,
    Cause,
    HttpRefusal,
    is_problem,
    of_answer,
    of_error,
    read_problem,
)
from listener.pos.codes import PROBLEM_TYPES

HOST = "pos.example.com"
KEY: Any = SimpleNamespace(host=HOST, port=443, ssl=True, is_ssl=True)
OURS = {"Content-Type": "application/problem+json; charset=utf-8"}


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "no name")), Cause.UNREACHABLE),
        (aiohttp.ClientConnectorError(KEY, OSError(111, "refused")), Cause.UNREACHABLE),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "x")), Cause.TLS),
        (
            aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, "x")),
            Cause.TLS,
        ),
        (aiohttp.ServerDisconnectedError(), Cause.UNREACHABLE),
        (ConnectionResetError(), Cause.UNREACHABLE),
        (OSError(113, "no route"), Cause.UNREACHABLE),
        (TimeoutError(), Cause.SILENT),
        (aiohttp.SocketTimeoutError(), Cause.SILENT),
        (aiohttp.ClientPayloadError("broken"), Cause.NOT_WEBSOCKET),
        (AssertionError(), Cause.NOT_WEBSOCKET),
    ],
)
def test_each_failure_has_its_cause_and_names_the_host(error: Exception, cause: Cause) -> None:
    outage = of_error(error, host=HOST)
    assert outage.cause is cause
    assert HOST in outage.why
    assert outage.why.isprintable()


def test_why_a_certificate_is_not_trusted_is_told_to_its_end() -> None:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify")
    error.verify_message = "unable to get local issuer certificate"
    outage = of_error(aiohttp.ClientConnectorCertificateError(KEY, error), host=HOST)
    assert outage.why.endswith("is not trusted: unable to get local issuer certificate")


@pytest.mark.parametrize(
    ("status", "headers", "cause", "part"),
    [
        (403, {"Server": "cloudflare"}, Cause.REFUSED, "cloudflare"),
        (401, {"Content-Type": "text/html; x"}, Cause.REFUSED, "(text/html)"),
        (302, {"Location": "https://login.example/?a=b"}, Cause.REFUSED, "login.example"),
        (302, {"Location": "http://["}, Cause.REFUSED, "another page"),
        (301, {}, Cause.REFUSED, "another page"),
        (200, {"Content-Type": "text/html"}, Cause.NOT_WEBSOCKET, "something else"),
        (426, {}, Cause.NOT_WEBSOCKET, "upgrade"),
    ],
)
def test_a_strangers_answer_is_reported_with_its_sender(
    status: int, headers: dict[str, str], cause: Cause, part: str
) -> None:
    outage = of_answer(status, headers, host=HOST)
    assert outage.cause is cause
    assert part in outage.why


def test_a_strangers_words_are_cut_and_steer_no_screen() -> None:
    headers = {"Server": "e\x1b[31m\u202e" + "x" * 500}
    why = of_answer(403, headers, host=HOST).why
    assert why.isprintable()
    assert len(why) < SHOWN_CHARS_MAX + 80


def test_the_listeners_own_answer_is_reported_in_its_words() -> None:
    problem = HttpRefusal(code="draining", detail="a restart is under way", retry=True)
    why = of_answer(503, OURS, host=HOST, problem=problem).why
    assert why == "the listener answers 503: a restart is under way"


def write(**members: object) -> bytes:
    return orjson.dumps({"type": f"{PROBLEM_TYPES}no", "code": "no", "retry": False} | members)


def test_only_a_problem_with_a_type_of_ours_is_the_listeners() -> None:
    assert read_problem(OURS, write(detail="do")) == HttpRefusal(
        code="no", detail="do", retry=False
    )
    assert read_problem(OURS, write(code=5)) == HttpRefusal(code="no", detail="", retry=False)
    for headers in ({}, {"Content-Type": "application/json"}, {"Content-Type": "text/html"}):
        assert not is_problem(headers)
        assert read_problem(headers, write()) is None
    for kind in ("about:blank", "https://errors.cdn.example/1020", 5, None):
        assert read_problem(OURS, write(type=kind)) is None
    for body in (b"", b"<html>", b"[]", b"5", b"\xff", b"[" * 9999):
        assert read_problem(OURS, body) is None


@pytest.mark.parametrize("retry", [True, None, 0, "false"])
def test_only_a_plain_false_says_not_to_come_back(retry: object) -> None:
    found = read_problem(OURS, write(retry=retry))
    assert found is not None
    assert found.retry
