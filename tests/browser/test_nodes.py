"""The health card names the listeners that share a ledger, and says when one is unlike the rest."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from listener import __version__
from listener.keys import Role
from tests.browser.stage import running_stage
from tests.browser.visit import visit
from tests.support.commands import started
from tests.support.databases import database, run


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    with database() as url:
        yield url


def nodes(url: str) -> list[str]:
    found: list[str] = run(
        url, lambda db: db.fetchval("SELECT array_agg(id ORDER BY started_at, id) FROM nodes")
    )
    return found


def test_health_names_each_listener_with_its_version_and_lag(
    browser: Browser, tmp_path: Path, url: str
) -> None:
    with (
        running_stage(tmp_path, database=url) as stage,
        started("serve", "--config", stage.path, env={"LISTENER_PORT": "0"}) as other,
        visit(browser, stage.url) as made,
    ):
        other.until(other.err, " serving ")
        stage.notify("297553638310000009", "success")
        made.enter(stage.key(Role.ADMIN))
        card = made.page.locator("#health div").filter(has_text="listeners share the ledger")
        expect(card).to_have_class("tone-good")
        expect(card.locator("dt")).to_have_text("2 listeners share the ledger")
        here, there = nodes(url)
        expect(card.locator("li")).to_have_text(
            [f"{here} {__version__} · up to date · answered", f"{there} {__version__} · up to date"]
        )
        # The plot says whose notifications it counts.
        expect(made.page.locator("#activity")).to_contain_text(
            f"those that {here} took", timeout=15_000
        )
        assert other.stop() == 0
        run(
            url,
            lambda db: db.execute(
                "INSERT INTO nodes VALUES ('0ld', '', '0.1.9', 0, 10001, 90000, 9000000000000)"
            ),
        )
        made.page.reload()
        made.expect_live()
        expect(card).to_have_class("tone-warn")
        expect(card).to_contain_text("0ld 0.1.9 · 10,001 behind · clock 1 min off")
        expect(card).to_contain_text("Two versions: end the rolling restart.")
