"""A page that is open for months, behind a network that answers for the listener."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from listener.keys import Role
from tests.browser.stage import Stage, running_stage
from tests.browser.test_live import row, start_sale
from tests.browser.visit import visit
from tests.support.commands import run

CODES = "Object.keys(sessionStorage).filter((name) => name.startsWith('listener-till-code '))"
# What the page has said since about whether it is live.
RECORD = """() => {
  window.said = [];
  const look = () => said.push(document.getElementById('live').textContent);
  new MutationObserver(look).observe(document.getElementById('live'), { childList: true });
}"""
FILL = """() => {
  const room = (length) => {
    try { for (let n = 0; ; n += 1) sessionStorage.setItem(`${length} ${n}`, 'x'.repeat(length)); }
    catch { /* It is full. */ }
  };
  [100000, 1000, 10, 0].forEach(room);
}"""


def test_a_tab_without_room_goes_on_selling(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        till.page.evaluate(FILL)
        start_sale(till.page)
        expect(till.page.get_by_role("img", name="Code to pay 13.00 USD")).to_be_visible()
        expect(till.page.locator("#sale-error")).to_have_text("")


def test_the_codes_of_sales_that_are_no_longer_shown_are_forgotten(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        start_sale(till.page)
        till.page.evaluate("sessionStorage.setItem('listener-till-code 1', 'of long ago')")
        assert len(till.page.evaluate(CODES)) == 2
        till.page.reload()
        till.expect_live()
        till.page.wait_for_function(f"() => {CODES}.length === 1")
        reference = start_sale(till.page)
        for place in range(100):
            stage.notify(f"2975536383050000{place:02}", "success")
        expect(till.page.locator("#recent")).to_contain_text("ref-000099")
        # That of the sale in hand is left, and the sale with it.
        till.page.wait_for_function(f"() => {CODES}.length === 1")
        expect(till.page.locator("#current .price")).to_contain_text(reference)
        expect(till.page.get_by_role("img", name="Code to pay 13.00 USD")).to_be_visible()


def a_page(status: int) -> Callable[[Route], None]:
    """Return a proxy's answer to a request."""
    return lambda route: route.fulfill(
        status=status, content_type="text/html", body="<h1>nginx</h1>"
    )


def test_what_a_proxy_answers_is_not_taken_for_the_listeners_answer(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        start_sale(till.page)
        for status in (200, 502):
            till.page.route("**/v1/**", a_page(status))
            till.page.get_by_role("button", name="Start the sale").click()
            said = f"something on the way answered ({status}). Try again."
            expect(till.page.locator("#sale-error")).to_contain_text(said)
            till.page.get_by_role("button", name="Cancel the sale").click()
            expect(till.page.locator("#current .error")).to_contain_text(said)
            till.page.unroute("**/v1/**")
        till.page.get_by_role("button", name="Cancel the sale").click()
        expect(till.page.locator("#current .word")).to_have_text("Cancelled")


def test_a_key_outlasts_a_reload_while_the_listener_is_away(browser: Browser, stage: Stage) -> None:
    for path, role in (("/till", Role.POS), ("/", Role.ADMIN)):
        key = stage.key(role, terminal="T-1" if role is Role.POS else None)
        with visit(browser, stage.url + path) as made:
            made.enter(key)
            made.expect_live()
            for pattern in ("**/v1/**", "**/metrics"):
                made.page.route(pattern, a_page(502))
            made.page.reload()
            expect(made.page.locator("#gate-error")).to_contain_text("Try again")
            expect(made.page.get_by_label("Key")).to_have_value(key)
            made.page.unroute_all()
            made.page.reload()
            made.expect_live()


def test_a_list_that_was_not_read_is_not_called_empty(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/#/200043/%E0%A4") as head:
        # An address that was cut off names nothing, and stops nothing.
        head.enter(stage.key(Role.ADMIN))
        expect(head.page.locator("#story")).to_be_hidden()
        said, none = head.page.locator("#transactions-said"), head.page.locator("#none")
        head.page.route("**/v1/transactions?status=refunded*", a_page(502))
        head.page.get_by_text("Refunded", exact=True).click()
        expect(said).to_contain_text("Try again")
        expect(none).to_have_text("")
        head.page.unroute_all()
        head.page.get_by_text("Failed", exact=True).click()
        expect(none).to_have_text("No transaction with this status yet.")
        expect(said).to_have_text("")


def test_where_it_was_not_read_what_needs_a_person_nothing_is_said_to_need_nobody(
    browser: Browser, stage: Stage
) -> None:
    calm = "Nothing needs you: no open cancel, no conflict."
    with visit(browser, f"{stage.url}/") as head:
        said = head.page.locator("#attention-none")
        head.page.route("**/v1/transactions?held=true*", a_page(502))
        head.enter(stage.key(Role.ADMIN))
        expect(said).to_contain_text("Not all that may need you was read: ")
        expect(said).to_be_visible()
        # It tries again by itself.
        head.page.unroute_all()
        expect(said).to_have_text(calm)


def test_a_device_that_goes_offline_is_not_live_and_comes_back(
    browser: Browser, stage: Stage
) -> None:
    for path, role in (("/till", Role.POS), ("/", Role.ADMIN), ("/", Role.LEDGER)):
        with visit(browser, stage.url + path) as made:
            made.enter(stage.key(role, terminal="T-1" if role is Role.POS else None))
            made.page.context.set_offline(True)
            # Long before the 35 s after which silence counts.
            made.expect_not_live()
            made.page.context.set_offline(False)
            made.expect_live()


def test_a_key_that_may_only_look_is_not_live_after_a_sleep_until_it_hears_anew(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.LEDGER))
        head.page.evaluate(RECORD)
        # As after a sleep: the steady clock stood still, and the clock of the day went on.
        head.page.evaluate("() => { const now = Date.now; Date.now = () => now() + 3_600_000; }")
        head.page.wait_for_function("() => said.length === 2")
        assert head.page.evaluate("said") == ["Not live", "Live"]


@pytest.mark.parametrize("days", [1, -1])
def test_a_device_whose_clock_is_a_day_wrong_shows_how_old_things_are(
    browser: Browser, stage: Stage, days: int
) -> None:
    with visit(browser, f"{stage.url}/") as head:
        head.page.add_init_script(
            f"const now = Date.now; Date.now = () => now() + {days} * 86_400_000;"
        )
        head.page.reload()
        head.enter(stage.key(Role.ADMIN))
        reference = f"{days} day wrong"
        stage.notify(f"29755363830900006{days + 1}", "pending", reference=reference)
        age = row(head.page, reference).locator("time")
        # More than nothing, too: it goes on.
        expect(age).to_have_text(re.compile(r"^[2-9] s ago$"))
        stage.kill()
        head.expect_not_live()
        said = head.page.locator("#stale").inner_text()
        today = head.page.evaluate("new Date().getDate()")
        assert said.startswith(f"Not live since {today} "), said
        stage.start()


def test_a_key_that_may_only_look_is_not_told_live_while_nobody_answers(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.LEDGER))
        head.page.evaluate(RECORD)
        stage.kill()
        head.expect_not_live()
        since = head.page.locator("#stale").inner_text()
        assert "(the listener does not answer)" in since
        for _ in range(2):
            with head.page.expect_event("requestfailed", lambda one: "/v1/entries" in one.url):
                pass
        assert head.page.evaluate("said") == ["Not live"]
        assert head.page.locator("#stale").inner_text() == since
        stage.start()
        head.expect_live()


def test_a_key_that_may_only_look_is_told_no_reason_from_an_earlier_outage(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.LEDGER))
        with head.page.expect_event("requestfailed", lambda one: "/v1/entries" in one.url):
            head.page.evaluate("dispatchEvent(new Event('offline'))")
        # Nothing is asked just now: it waits before it tries again.
        head.page.evaluate("dispatchEvent(new Event('offline'))")
        head.expect_live()
        stage.kill()
        head.expect_not_live()
        assert "(the listener does not answer)" in head.page.locator("#stale").inner_text()
        stage.start()


def test_a_key_that_may_only_look_sees_a_restored_ledger_as_it_is(
    browser: Browser, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    with running_stage(tmp_path) as stage, visit(browser, f"{stage.url}/") as head:
        key = stage.key(Role.LEDGER)
        stage.notify("297553638301000041", "pending")
        assert run("backup", backup, "--config", stage.path).status == 0
        stage.notify("297553638301000041", "success")
        stage.notify("297553638301000042", "success")
        head.enter(key)
        expect(row(head.page, "ref-000041")).to_contain_text("Paid")
        expect(row(head.page, "ref-000042")).to_contain_text("Paid")
        stage.kill()
        head.expect_not_live()
        for leftover in tmp_path.glob("ledger.db*"):
            leftover.unlink()
        shutil.copy(backup, tmp_path / "ledger.db")
        stage.start()
        head.expect_live()
        expect(row(head.page, "ref-000041")).to_contain_text("Pending")
        expect(row(head.page, "ref-000042")).to_have_count(0)
