"""What happens at the till and at Pockyt appears on both pages without a reload."""

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from listener.keys import Role
from tests.browser.stage import Stage
from tests.browser.visit import Visit, visit
from tests.support.commands import run


def row(page: Page, text: str) -> Locator:
    return page.locator("#rows tr").filter(has_text=text)


def start_sale(page: Page, *, vendor: str = "alipay") -> str:
    """Start a sale on the till; return its reference."""
    page.get_by_label("How the customer pays").select_option(vendor)
    reference = page.get_by_label("Reference").input_value()
    page.get_by_role("button", name="Start the sale").click()
    expect(page.locator("#current .price")).to_contain_text(reference)
    return reference


def number_of(page: Page) -> str:
    return page.locator("#current .price .mono").inner_text()


def mark(visited: Visit) -> None:
    """Leave a mark that a reload would remove."""
    visited.page.evaluate("window.mark = 'here'")


def is_marked(visited: Visit) -> bool:
    return bool(visited.page.evaluate("window.mark === 'here'"))


def test_a_cancel_on_the_till_appears_on_the_dashboard_without_a_reload(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/") as head, visit(browser, f"{stage.url}/till") as till:
        head.enter(stage.key(Role.ADMIN))
        till.enter(stage.key(Role.POS, terminal="T-1"))
        mark(head)
        reference = start_sale(till.page)
        expect(row(head.page, reference)).to_contain_text("Created")
        expect(till.page.get_by_role("img", name="Code to pay 13.00 USD")).to_be_visible()
        till.page.get_by_role("button", name="Cancel the sale").click()
        expect(till.page.locator("#current .word")).to_have_text("Cancelled")
        expect(row(head.page, reference)).to_contain_text("Cancelled")
        expect(row(head.page, reference)).to_contain_text("T-1")
        assert is_marked(head)


def test_a_customer_who_pays_is_seen_on_both_pages(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/") as head, visit(browser, f"{stage.url}/till") as till:
        head.enter(stage.key(Role.ADMIN))
        till.enter(stage.key(Role.POS, terminal="T-1"))
        reference = start_sale(till.page)
        stage.pay(number_of(till.page))
        expect(till.page.locator("#current .word")).to_have_text("Paid")
        expect(row(head.page, reference)).to_contain_text("Paid")


def test_a_sale_that_was_paid_meanwhile_is_not_cancelled_but_may_be_refunded(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1", may_refund=True))
        stage.plan("notification-lost")
        start_sale(till.page)
        stage.pay(number_of(till.page))
        till.page.get_by_role("button", name="Cancel the sale").click()
        expect(till.page.locator("#current .word")).to_have_text("Paid")
        stage.plan()
        # The events of the same moment do not take away why, and what can be done.
        expect(till.page.locator("#current .error")).to_contain_text("nothing was cancelled")
        expect(till.page.get_by_role("button", name="Cancel the sale")).to_have_count(0)
        till.page.get_by_role("button", name="Cancel and give the money back").click()
        expect(till.page.locator("#current .word")).to_have_text("Refunded")
        expect(till.page.locator("#current .error")).to_have_count(0)


def test_a_till_that_scans_charges_the_customers_code(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        start_sale(till.page, vendor="")
        till.page.get_by_label("The customer’s code").fill("285091234567890123")
        till.page.get_by_role("button", name="Charge").click()
        expect(till.page.locator("#current .word")).to_have_text("Paid")


def test_both_pages_say_that_the_listener_is_gone_and_come_back_by_themselves(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/") as head, visit(browser, f"{stage.url}/till") as till:
        head.enter(stage.key(Role.ADMIN))
        till.enter(stage.key(Role.POS, terminal="T-1"))
        mark(head)
        mark(till)
        stage.notify("297553638301000001", "pending")
        expect(row(head.page, "297553638301000001")).to_contain_text("Pending")
        stage.kill()
        for page in (head, till):
            page.expect_not_live()
            assert page.page.title().startswith("Not live")
        stage.start()
        # Before they are back: what they missed is shown too.
        stage.notify("297553638301000001", "success")
        for page in (head, till):
            page.expect_live()
            expect(page.page.locator("#stale")).to_be_hidden()
            assert is_marked(page)
        expect(row(head.page, "297553638301000001")).to_contain_text("Paid")
        expect(till.page.locator("#recent li").filter(has_text="ref-000001")).to_contain_text(
            "Paid"
        )


def test_a_reloaded_till_shows_what_it_showed(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        reference = start_sale(till.page)
        till.page.reload()
        till.expect_live()
        till.page.locator("#recent button").filter(has_text=reference).click()
        expect(till.page.get_by_role("img", name="Code to pay 13.00 USD")).to_be_visible()


def test_a_ledger_key_looks_on_and_is_told_what_it_cannot_do(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.LEDGER))
        expect(head.page.locator("#limits")).to_contain_text("This key may look only")
        stage.notify("297553638301000002", "success")
        expect(row(head.page, "297553638301000002")).to_contain_text("Paid")
        row(head.page, "297553638301000002").get_by_role("link").click()
        expect(head.page.locator("#story")).to_contain_text("need an admin key")
        expect(head.page.get_by_role("button", name="Ask Pockyt now")).to_have_count(0)


def test_a_key_without_a_use_here_is_told_why(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/") as head:
        for key, why in (
            (stage.key(Role.POS, terminal="T-9"), "This is a till’s key"),
            ("lk_0_0", "This key is not known here"),
        ):
            head.page.get_by_label("Key").fill(key)
            head.page.keyboard.press("Enter")
            expect(head.page.locator("#gate-error")).to_contain_text(why)
        assert head.page.evaluate("sessionStorage.length") == 0


def test_a_revoked_key_ends_the_visit(browser: Browser, stage: Stage) -> None:
    key, key_id = stage.key_and_id(Role.POS, terminal="T-7")
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(key)
        assert run("keys", "revoke", key_id, "--config", stage.path).status == 0
        expect(till.page.locator("#gate-error")).to_contain_text("the key was revoked")
        assert till.page.evaluate("sessionStorage.getItem('listener-till-key')") is None


@pytest.mark.parametrize("role", [Role.ADMIN, Role.LEDGER])
def test_a_dashboard_whose_key_is_revoked_says_so(
    browser: Browser, stage: Stage, role: Role
) -> None:
    key, key_id = stage.key_and_id(role)
    with visit(browser, f"{stage.url}/") as head:
        head.enter(key)
        assert run("keys", "revoke", key_id, "--config", stage.path).status == 0
        expect(head.page.locator("#gate-error")).to_contain_text("was revoked")


def test_an_operator_settles_what_pockyt_cannot(browser: Browser, stage: Stage) -> None:
    number = "297553638301000003"
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.ADMIN))
        stage.notify(number, "success")
        stage.notify(number, "closed")
        card = head.page.locator("#attention li").filter(has_text="Conflict")
        card.get_by_role("button", name="Ask Pockyt now").click()
        expect(card.locator(".outcome")).to_contain_text("No status from Pockyt")
        card.get_by_role("button", name="Decide").click()
        head.page.get_by_label("It is").select_option("cancelled")
        head.page.get_by_label("Because").fill("The portal shows no payment")
        head.page.get_by_label("Your name").fill("R. Osei")
        head.page.get_by_role("button", name="Record the decision").click()
        story = head.page.locator("#story")
        expect(story.locator(".top .status")).to_have_text("Cancelled")
        expect(story.locator(".timeline")).to_contain_text(
            "R. Osei decided that it is cancelled: The portal shows no payment"
        )
        head.page.keyboard.press("Escape")
        expect(card).to_have_count(0)
        expect(row(head.page, number)).to_contain_text("Cancelled")


def test_the_second_operator_is_told_that_somebody_has_decided_meanwhile(
    browser: Browser, stage: Stage
) -> None:
    number = "297553638301000004"
    with visit(browser, f"{stage.url}/") as one, visit(browser, f"{stage.url}/") as other:
        stage.notify(number, "success")
        stage.notify(number, "closed")
        for head, word in ((one, "cancelled"), (other, "paid")):
            head.enter(stage.key(Role.ADMIN))
            card = head.page.locator("#attention li").filter(has_text="Conflict")
            card.get_by_role("button", name="Decide").click()
            head.page.get_by_label("It is").select_option(word)
            head.page.get_by_label("Because").fill("Seen")
            head.page.get_by_label("Your name").fill("R. Osei")
        for head in (one, other):
            head.page.get_by_role("button", name="Record the decision").click()
            expect(head.page.locator("#story .top .status")).to_have_text("Cancelled")
        expect(other.page.locator("#story form .error")).to_contain_text("has changed since")
        # Having read that, he may overrule it.
        other.page.get_by_role("button", name="Record the decision").click()
        expect(other.page.locator("#story .top .status")).to_have_text("Paid")


def test_the_focus_comes_back_to_a_row_that_changed_while_its_story_was_read(
    browser: Browser, stage: Stage
) -> None:
    number = "297553638301000099"
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.ADMIN))
        stage.notify(number, "pending")
        link = row(head.page, number).get_by_role("link")
        link.focus()
        link.press("Enter")
        expect(head.page.locator("#story .top .status")).to_have_text("Pending")
        stage.notify(number, "success")
        expect(head.page.locator("#story .top .status")).to_have_text("Paid")
        expect(row(head.page, number)).to_contain_text("Paid")
        head.page.keyboard.press("Escape")
        expect(link).to_be_focused()


def test_a_story_tells_how_often_a_notification_came_and_why_one_is_held(
    browser: Browser, stage: Stage
) -> None:
    number = "297553638301000004"
    for _ in range(3):
        stage.notify(number, "pending")
    stage.notify(number, "success", note="a&b")
    with visit(browser, f"{stage.url}/#/200043/{number}") as head:
        head.enter(stage.key(Role.ADMIN))
        timeline = head.page.locator("#story .timeline")
        expect(timeline).to_contain_text("Pockyt notified: “pending”")
        expect(timeline).to_contain_text("Delivered 3 times")
        expect(timeline).to_contain_text("Evidence: Pockyt’s signature")
        expect(timeline).to_contain_text("Held, so it counts for nothing: a value holds “&”")
        head.page.keyboard.press("Escape")
        attention = head.page.locator("#attention")
        expect(attention).to_contain_text("Held")


def test_a_transaction_is_found_by_its_reference_by_its_number_and_by_its_status(
    browser: Browser, stage: Stage
) -> None:
    stage.notify("297553638301000005", "refunded", reference="needle-in-the-hay")
    stage.notify("297553638301000006", "failed")
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.ADMIN))
        search = head.page.get_by_label("Search by a part of the reference or number")
        for text in ("needle-in", "297553638301000005"):
            search.fill(text)
            expect(head.page.locator("#rows tr")).to_have_count(1)
            expect(row(head.page, "needle-in-the-hay")).to_be_visible()
        search.fill("29755363830100000")
        expect(row(head.page, "needle-in-the-hay")).to_be_visible()
        head.page.get_by_label("Failed").check()
        # What is searched for has the chosen status, too.
        expect(head.page.locator("#rows tr")).to_have_count(1)
        expect(head.page.locator("#transactions-said")).to_have_text("1 found")
        search.fill("needle-in")
        expect(head.page.locator("#none")).to_contain_text("No transaction with this status has")
        search.fill("")
        expect(row(head.page, "297553638301000006")).to_be_visible()
        expect(row(head.page, "needle-in-the-hay")).to_have_count(0)


def test_what_is_held_needs_attention_however_old_it_is_and_whatever_its_status(
    browser: Browser, stage: Stage
) -> None:
    number = "297553638304000001"
    stage.notify(number, "success", reference="old-and-held")
    # A notice of a refund is no payment, and Pockyt here knows nothing of it.
    stage.notify(number, "success", reference="old-and-held", refundTransactionNo="7")
    for place in range(110):
        stage.notify(f"297553638304{place + 100:06}", "success")
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.ADMIN))
        expect(row(head.page, "304000209")).to_be_visible()
        card = head.page.locator("#attention > li").filter(has_text="old-and-held")
        expect(card.locator("h3")).to_contain_text("Held")
        # Of the newest hundred it is none.
        expect(row(head.page, "old-and-held")).to_have_count(0)
        head.page.get_by_label("Search by a part").fill("old-and-held")
        expect(row(head.page, "old-and-held")).to_contain_text("Paid")


def test_the_list_is_of_one_store_and_one_day_also_after_a_reload(
    browser: Browser, stage: Stage
) -> None:
    number = "29755363830300000"
    stage.notify(f"{number}1", "success", reference="shop-1")
    # A store that is not configured is none.
    stage.notify(f"{number}2", "success", reference="lost-1", store_no="999999")
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.ADMIN))
        rows, none = head.page.locator("#rows tr"), head.page.locator("#none")
        expect(row(head.page, "shop-1")).to_be_visible()
        offered = head.page.locator("#stores option")
        expect(offered.locator("xpath=self::*[@value='303660']")).to_have_count(1)
        store = head.page.get_by_label("Show one store")
        store.fill("-")
        expect(row(head.page, "lost-1")).to_be_visible()
        expect(row(head.page, "shop-1")).to_have_count(0)
        # What comes meanwhile is shown where it belongs; what needs a person is of all stores.
        stage.notify(f"{number}3", "success", reference="shop-2", note="a&b")
        stage.notify(f"{number}4", "success", reference="lost-2", store_no="999999")
        expect(row(head.page, "lost-2")).to_be_visible()
        expect(head.page.locator("#attention")).to_contain_text("Held")
        expect(row(head.page, "shop-2")).to_have_count(0)
        today = head.page.evaluate("new Date().toLocaleDateString('sv')")
        day = head.page.get_by_label("Day")
        day.fill(today)
        expect(row(head.page, "lost-2")).to_be_visible()
        expect(head.page).to_have_url(f"{stage.url}/?store=-&day={today}")
        head.page.reload()
        head.expect_live()
        expect(row(head.page, "lost-2")).to_be_visible()
        expect(row(head.page, "shop-2")).to_have_count(0)
        # A story opens above the list, and the address is the same after it.
        row(head.page, "lost-2").get_by_role("link").click()
        expect(head.page.locator("#story")).to_contain_text("Paid")
        head.page.keyboard.press("Escape")
        expect(head.page).to_have_url(f"{stage.url}/?store=-&day={today}")
        day.fill("2020-11-23")
        expect(none).to_have_text("No transaction at this store that began on this day.")
        head.page.get_by_label("Search by a part").fill("lost")
        expect(none).to_contain_text("that began on this day has this in its reference")
        day.fill("")
        expect(rows).to_have_count(2)
        store.fill("no such")
        expect(none).to_contain_text("storeNo must be of the characters")
        store.fill("")
        expect(head.page).to_have_url(f"{stage.url}/")


def test_a_part_of_a_reference_finds_what_the_page_has_not_read(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.ADMIN))
        for place in range(130):
            stage.notify(f"297553638305{place:06}", "success", reference=f"Filler-{place}")
        head.page.reload()
        head.expect_live()
        search = head.page.get_by_label("Search by a part of the reference or number")
        search.fill("filler-1")
        # 1, 10 to 19 and 100 to 129; the page itself has read the newest hundred.
        expect(head.page.locator("#transactions-said")).to_have_text("41 found")
        expect(head.page.locator("#rows tr")).to_have_count(41)
        search.fill("305000003")
        expect(head.page.locator("#rows tr")).to_have_count(1)
        search.fill("Filler-%")
        expect(head.page.locator("#none")).to_have_text(
            "No transaction has this in its reference or number."
        )


def test_the_dashboard_shows_who_is_there_and_how_the_ledger_is(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/till") as till, visit(browser, f"{stage.url}/") as head:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        head.enter(stage.key(Role.ADMIN))
        terminal = head.page.locator("#terminals li").filter(has_text="T-1")
        expect(terminal).to_contain_text("online")
        expect(head.page.locator("#health")).to_contain_text("The ledger writes and syncs")
        stage.notify("297553638301000007", "success")
        plot = head.page.get_by_role("img", name="Time until acknowledged; median")
        expect(plot).to_be_visible()


def test_a_cancel_that_pockyt_does_not_answer_waits_in_front_of_all(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/") as head, visit(browser, f"{stage.url}/till") as till:
        head.enter(stage.key(Role.ADMIN))
        till.enter(stage.key(Role.POS, terminal="T-1"))
        reference = start_sale(till.page)
        stage.plan("query-5xx", "cancel-5xx-unheard")
        till.page.get_by_role("button", name="Cancel the sale").click()
        card = head.page.locator("#attention li").filter(has_text=reference)
        expect(card).to_contain_text("Cancelling …")
        expect(till.page.locator("#current .word")).to_have_text("Cancelling …")
        stage.plan()
        card.get_by_role("button", name="Ask Pockyt now").click()
        expect(card).to_have_count(0)
        expect(till.page.locator("#current .word")).to_have_text("Cancelled")
