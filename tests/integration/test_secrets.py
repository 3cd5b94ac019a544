"""No secret leaves: whatever is sent, nothing of it is in log, answers, metrics or ledger."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from listener.keys import Role
from listener.pockyt import signature
from tests.support.service import FIELDS, FORM, MERCHANT_NO, TOKEN, TOKEN_TEXT, serving, signed

NOTIFY = f"/notify/{MERCHANT_NO}"
OTHER = signature.Token("another merchant's token")


def bodies() -> Iterator[tuple[bytes, str]]:
    """Yield what is believed, repeated, held, refused and unreadable, with its type."""
    good = signed(FIELDS)
    held = signed({**FIELDS, "note": "a&b", "amount": "?"})
    as_json = json.dumps({**FIELDS, "note": "", signature.FIELD: signature.sign(FIELDS, TOKEN)})
    yield from ((body, FORM) for body in (good, good, held, signed(FIELDS, token=OTHER)))
    yield from ((body, FORM) for body in (good + b"&status=paid", good + b"&x=%ff", good[:-1]))
    yield as_json.encode(), "application/json"
    yield as_json.encode()[:-5], "application/json"


async def test_no_token_digest_signature_or_key_is_told_logged_or_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = []
    async with serving(tmp_path / "ledger.db") as running:
        admin = running.key(Role.ADMIN, merchant_no=None, store_no=None)
        for body, content_type in bodies():
            async with running.client.post(
                running.url + NOTIFY, data=body, headers={"Content-Type": content_type}
            ) as answer:
                told.append(await answer.text())
        for path in ("/v1/entries", "/v1/transactions", "/v1/ledger", "/metrics", "/healthz"):
            for key in (admin, admin + "x"):
                headers = {"Authorization": f"Bearer {key}"}
                async with running.client.get(running.url + path, headers=headers) as answer:
                    told.append(await answer.text())
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode(errors="replace")
    assert FIELDS["reference"] in kept
    assert "refused" in caplog.text
    everything = "\n".join([*told, caplog.text, kept])
    secrets = {
        "token": TOKEN_TEXT,
        "digest": hashlib.md5(TOKEN_TEXT.encode()).hexdigest(),
        "signature": signature.sign(FIELDS, TOKEN),
        "wrong signature": signature.sign(FIELDS, OTHER),
        "key": admin.split("_", 2)[2],
    }
    assert [name for name, secret in secrets.items() if secret in everything] == []
