"""What the pages show is true: grouped, dated, and never "live" when it is not."""

import re

from playwright.sync_api import Browser, Page, expect

from listener.keys import Role
from tests.browser.stage import Stage
from tests.browser.visit import PHONE, visit

# A day, a clock and a zone, such as "26 Nov 2026, 10:11:12 UTC".
DATED = re.compile(r"\d{1,2} \w{3} \d{4}, \d{2}:\d{2}:\d{2} \S+")
RECORD_PAPER = """() => addEventListener('beforeprint', () => {
  window.paper = document.querySelector('main').textContent;
})"""


def expect_in_sight(page: Page, selector: str) -> None:
    """Wait until a picture is drawn and on the screen, whole, however often it is drawn anew."""
    page.wait_for_function(
        "(selector) => { const picture = document.querySelector(selector);"
        " if (!picture?.naturalWidth) return false;"
        " const { top, bottom } = picture.getBoundingClientRect();"
        " return top >= 0 && bottom > top && bottom <= innerHeight }",
        arg=selector,
    )


def test_on_a_phone_the_code_is_on_the_screen_after_the_sale_was_started(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/till", size=PHONE) as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        for _ in range(2):
            button = till.page.get_by_role("button", name="Start the sale")
            button.scroll_into_view_if_needed()
            button.click()
            expect(till.page.locator("#current .price")).to_be_visible()
            expect(till.page.get_by_role("img", name="Code to pay 13.00 USD")).to_be_visible()
            expect_in_sight(till.page, "#current img.qr")


def test_many_of_a_kind_at_one_store_are_one_card_with_each_reference_and_amount(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/") as head:
        head.enter(stage.key(Role.ADMIN))
        for place in range(3):
            number = f"29755363831000000{place}"
            stage.notify(number, "success", amount="4.10", reference=f"twin-{place}")
            stage.notify(number, "closed", amount="4.10", reference=f"twin-{place}")
        cards = head.page.locator("#attention > li").filter(has_text="Conflict")
        expect(cards).to_have_count(1)
        expect(cards.locator("h3")).to_have_text(re.compile(r"3 × Conflict · 12\.30\sUSD"))
        expect(cards).to_contain_text("store 303660")
        cards.locator("summary").click()
        rows = cards.locator(".group li")
        expect(rows).to_have_count(3)
        for place in range(3):
            expect(rows.filter(has_text=f"twin-{place}")).to_contain_text("4.10")
        # One more comes while the list is unfolded: it stays so.
        stage.notify("297553638310000003", "success", reference="twin-3")
        stage.notify("297553638310000003", "closed", reference="twin-3")
        expect(rows).to_have_count(4)
        expect(rows.filter(has_text="twin-3")).to_be_visible()


def test_a_page_that_is_not_live_claims_nothing(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/till") as till, visit(browser, f"{stage.url}/") as head:
        cancel = till.page.get_by_role("button", name="Cancel the sale")
        till.enter(stage.key(Role.POS, terminal="T-5"))
        till.page.get_by_role("button", name="Start the sale").click()
        expect(cancel).to_be_enabled()
        head.enter(stage.key(Role.ADMIN))
        expect(head.page.locator("#health .tone-good").first).to_be_visible()
        expect(head.page.locator("#terminals .is-online", has_text="online")).to_have_count(1)
        stage.kill()
        for made in (till, head):
            made.expect_not_live()
            expect(made.page.locator("#stale")).to_contain_text(DATED)
            expect(made.page.locator("#age")).to_have_text("")
            expect(made.page.locator("button[data-acts]:enabled:visible")).to_have_count(0)
            expect(made.page.locator("time.ago", has_text=" ago")).to_have_count(0)
        expect(head.page.locator("#health .tone-good")).to_have_count(0)
        expect(head.page.locator("#health")).to_contain_text("Not known now")
        expect(head.page.locator("#terminals .is-online")).to_have_count(0)
        stage.start()
        till.expect_live()
        head.expect_live()
        expect(cancel).to_be_enabled()
        expect(head.page.locator("#health .tone-good").first).to_be_visible()


def test_a_sale_without_a_number_is_shown_to_whoever_watches(
    browser: Browser, stage: Stage
) -> None:
    sale = {
        **dict.fromkeys(("transactionNo", "providerStatus", "cancel", "settleCurrency")),
        "reference": "LOST-1",
        "merchantNo": "200043",
        "storeNo": "303660",
        "terminal": "T-7",
        "amount": "77.00",
        "currency": "USD",
        "status": "unknown",
        "stateVersion": 0,
        "held": False,
        "createdAt": "2026-11-28T10:11:12.345Z",
        "updatedAt": "2026-11-28T10:11:12.345Z",
    }
    with visit(browser, f"{stage.url}/") as head:
        head.page.route("**/v1/sales", lambda route: route.fulfill(json={"data": [sale]}))
        head.enter(stage.key(Role.ADMIN))
        card = head.page.locator("#attention > li").filter(has_text="LOST-1")
        expect(card.locator("h3")).to_have_text(re.compile(r"Sale without an answer · 77.00\sUSD"))
        expect(card).to_contain_text("store 303660, T-7 · started ")
        # It has no number to ask with, and no story.
        expect(card.locator("button, a")).to_have_count(0)


def test_a_cancel_without_an_answer_is_one_word_on_the_till_and_nobodys_answer(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-6"))
        till.page.get_by_role("button", name="Start the sale").click()
        expect(till.page.locator("#current .word")).to_have_text("Created")
        stage.plan("query-5xx", "cancel-5xx-unheard")
        till.page.get_by_role("button", name="Cancel the sale").click()
        expect(till.page.locator("#current .word")).to_have_text("Cancelling …")
        step = till.page.locator("#current .steps li").last
        expect(step.locator("span")).to_have_text("Cancelling …")
        expect(till.page.locator("#recent li").first).to_contain_text("Cancelling …")
        stage.plan()


def test_every_time_of_a_story_has_its_day_and_zone(browser: Browser, stage: Stage) -> None:
    stage.notify("297553638310000009", "success")
    with visit(browser, f"{stage.url}/#/200043/297553638310000009") as head:
        head.enter(stage.key(Role.ADMIN))
        times = head.page.locator("#story time")
        expect(times.first).to_be_visible()
        for text in times.all_inner_texts():
            assert DATED.fullmatch(text), text


def test_paper_says_when_it_was_printed_and_not_how_old_things_are(
    browser: Browser, stage: Stage
) -> None:
    stage.notify("297553638301000971", "success")
    for path, role in (("/", Role.ADMIN), ("/till", Role.POS)):
        with visit(browser, stage.url + path) as made:
            made.enter(stage.key(role, terminal="T-1" if role is Role.POS else None))
            expect(made.page.locator("#rows tr, #recent li").first).to_be_visible()
            made.page.evaluate(RECORD_PAPER)
            made.page.pdf()
            paper = made.page.evaluate("paper")
            assert " ago" not in paper
            assert path != "/" or DATED.search(paper)
            printed = made.page.locator("#printed")
            expect(printed).to_have_text(re.compile(rf"^Printed {DATED.pattern}\.$"))
            expect(printed).to_be_hidden()
            made.page.emulate_media(media="print")
            expect(printed).to_be_visible()
            expect(made.page.locator(".state")).to_be_hidden()


def test_the_page_of_a_narrow_phone_begins_at_its_top(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/", size=(320, 640)) as head:
        head.enter(stage.key(Role.ADMIN))
        bar = head.page.locator(".bar").bounding_box()
        title = head.page.locator("#attention-title").bounding_box()
        assert bar is not None
        assert title is not None
        assert title["y"] >= bar["y"] + bar["height"]
