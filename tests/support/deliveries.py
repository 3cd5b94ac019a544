"""Deliver notifications to a service under test, and read what became of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from listener.keys import Role
from tests.support.service import FORM, MERCHANT_NO, STORE_NO, TOKEN_TEXT, Serving

JSON: Final = "application/json"
NOTIFY: Final = f"/notify/{MERCHANT_NO}/{STORE_NO}"


async def post(
    to: Serving,
    body: bytes,
    *,
    path: str = NOTIFY,
    content_type: str | None = FORM,
    method: str = "POST",
    headers: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, str, Mapping[str, str]]:
    """POST a body as it is; check that only an acknowledgement reads ``success``."""
    typed = {"Content-Type": content_type} if content_type is not None else {}
    skip = () if content_type is not None else ("Content-Type",)
    async with to.client.request(
        method, to.url + path, data=body, headers=typed | dict(headers), skip_auto_headers=skip
    ) as answer:
        text = await answer.text()
        if answer.status == 200:
            assert text == "success"
            assert answer.content_type == "text/plain"
        else:
            assert "success" not in text.lower()
            assert TOKEN_TEXT not in text
        return answer.status, text, answer.headers


async def entries(of: Serving) -> list[dict[str, object]]:
    """Return the entries of the ledger in order."""
    status, page = await of.get("/v1/entries", of.key(Role.ADMIN, merchant_no=None, store_no=None))
    assert status == 200
    assert isinstance(page, dict)
    found: list[dict[str, object]] = page["data"]
    return found
