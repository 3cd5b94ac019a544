"""The pages as they are served: their policy, their tags, their types, and nothing else."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from listener.web import pages
from listener.web.pages import CODE_BYTES_MAX
from listener.web.problem import PROBLEM
from listener.web.shapes import raw
from listener.web.shares import SEARCHES_WAITING_MAX
from tests.support.service import Serving, serving

PAGES = ("/", "/till")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db") as running:
        yield running


@pytest.mark.parametrize("path", [*PAGES, "/static/pages.css", "/static/pos-client.js"])
async def test_every_file_carries_the_strict_policy(served: Serving, path: str) -> None:
    async with served.client.get(served.url + path) as answer:
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not [rule for rule in policy if "unsafe" in rule or "http" in rule or "*" in rule]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_nothing_inline_and_names_only_what_is_served(
    served: Serving, path: str
) -> None:
    async with served.client.get(served.url + path) as answer:
        text = await answer.text()
    assert "<style" not in text
    assert " style=" not in text
    assert text.count("<script") == text.count('<script type="module" src="/static/')
    for part in text.split('"'):
        if part.startswith("/static/"):
            async with served.client.get(served.url + part) as answer:
                assert answer.status == 200, part


async def test_a_file_that_the_browser_has_is_not_sent_again(served: Serving) -> None:
    url = f"{served.url}/static/pages.css"
    async with served.client.get(url) as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.content_type == "text/css"
        tag = answer.headers["ETag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}"):
        async with served.client.get(url, headers={"If-None-Match": known}) as answer:
            assert answer.status == 304
            assert answer.headers["ETag"] == tag
            assert await answer.read() == b""
    async with served.client.get(url, headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


async def test_the_client_is_the_one_that_is_published(served: Serving) -> None:
    published = Path(__file__).parents[2] / "clients" / "js" / "pos-client.js"
    async with served.client.get(f"{served.url}/static/pos-client.js") as answer:
        assert answer.content_type == "text/javascript"
        assert await answer.read() == published.read_bytes()


@pytest.mark.parametrize(
    "path", ["/static/", "/static/nothing.js", "/static/%2e%2e/app.py", "/static/dashboard.html"]
)
async def test_only_what_a_page_loads_is_served(served: Serving, path: str) -> None:
    async with served.client.get(served.url + path) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("text", "status"),
    [("", 422), ("x", 200), ("x" * CODE_BYTES_MAX, 200), ("x" * (CODE_BYTES_MAX + 1), 422)],
)
async def test_a_code_is_drawn_up_to_what_a_camera_reads(
    served: Serving, text: str, status: int
) -> None:
    headers = {"Authorization": f"Bearer {served.key()}"}
    url = f"{served.url}/till/code"
    async with served.client.post(url, data=text.encode(), headers=headers) as answer:
        assert answer.status == status
        assert answer.content_type == ("image/svg+xml" if status == 200 else PROBLEM)


async def test_codes_are_drawn_beside_the_loop_one_of_a_key_at_a_time(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    drawn: Counter[str] = Counter()

    def draw(text: str) -> bytes:
        drawn[text] += 1
        may_end.wait(10)
        return b"<svg/>"

    monkeypatch.setattr(pages, "_draw", draw)

    async def ask(key: str, text: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{served.url}/till/code"
        async with served.client.post(url, data=text, headers=headers) as answer:
            return answer.status

    key, other = served.key(terminal="T-1"), served.key(terminal="T-2")
    asked = [asyncio.create_task(ask(key, "one")) for _ in range(2 + SEARCHES_WAITING_MAX)]
    asked.append(asyncio.create_task(ask(other, "other")))
    # The loop goes on: it refuses the one that is too many.
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [429]
    while drawn.total() < 2:
        await asyncio.sleep(0.01)
    assert drawn == {"one": 1, "other": 1}
    may_end.set()
    assert sorted(await asyncio.gather(*asked)) == [200] * (2 + SEARCHES_WAITING_MAX) + [429]


async def test_a_text_that_never_comes_is_not_waited_for(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "BODY_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection(*served.url.removeprefix("http://").split(":"))
    head = f"POST /till/code HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key()}\r\n"
    writer.write(f"{head}Content-Length: 9\r\n\r\nhttp".encode())
    async with asyncio.timeout(5):
        assert (await reader.readline()).split()[1] == b"408"
    writer.close()
