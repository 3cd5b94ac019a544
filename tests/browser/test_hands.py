"""What hands do at a till: hold a key down, press twice, scan, paste, type while it changes."""

from playwright.sync_api import Browser, Page, expect

from listener.keys import Role
from tests.browser.stage import Stage
from tests.browser.test_live import number_of, start_sale
from tests.browser.visit import visit

CODE = "284000000000000000"


def count_posts(page: Page, ending: str) -> list[str]:
    """Return a list that each post to a path grows by one."""
    posts: list[str] = []
    page.on(
        "request",
        lambda request: (
            posts.append(request.url)
            if request.method == "POST" and request.url.endswith(ending)
            else None
        ),
    )
    return posts


def test_a_key_held_down_starts_one_sale(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        posts = count_posts(till.page, "/v1/transactions")
        till.page.get_by_label("Amount").focus()
        till.page.keyboard.down("Enter")
        expect(till.page.locator("#current .price")).to_be_visible()
        expect(till.page.get_by_role("button", name="Start the sale")).to_be_enabled()
        for _ in range(3):
            till.page.keyboard.down("Enter")
        till.page.keyboard.up("Enter")
        till.page.get_by_label("Amount").fill("14.00")
        till.page.keyboard.press("Enter")
        expect(till.page.locator("#current .price")).to_contain_text("14.00")
        assert len(posts) == 2


def test_a_scanner_types_into_the_field_for_the_customers_code(
    browser: Browser, stage: Stage
) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        till.page.get_by_label("How the customer pays").select_option("")
        till.page.get_by_label("Reference").press("Enter")
        field = till.page.get_by_label("The customer’s code")
        expect(field).to_be_focused()
        till.page.keyboard.type(CODE[:5])
        # What happens to the sale meanwhile is shown, and takes nothing away.
        stage.notify(
            number_of(till.page),
            "pending",
            reference=till.page.locator("#current .price span").first.inner_text().split()[0],
        )
        expect(till.page.locator("#current .word")).to_have_text("Pending")
        expect(field).to_be_focused()
        till.page.keyboard.type(CODE[5:])
        expect(field).to_have_value(CODE)
        till.page.keyboard.press("Enter")
        expect(till.page.locator("#current .word")).to_have_text("Paid")


def test_a_code_is_charged_once_however_often_it_is_pressed(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        start_sale(till.page, vendor="")
        posts = count_posts(till.page, "/pay")
        till.page.get_by_label("The customer’s code").fill(CODE)
        till.page.evaluate(
            "() => { const button = document.querySelector('.scan button');"
            " button.click(); button.click() }"
        )
        expect(till.page.locator("#current .word")).to_have_text("Paid")
        assert len(posts) == 1


def test_a_key_is_taken_as_it_is_pasted(browser: Browser, stage: Stage) -> None:
    for path, key in (
        ("/till", stage.key(Role.POS, terminal="T-1")),
        ("/", stage.key(Role.ADMIN)),
    ):
        for pasted in (f" “{key}”\u200b", f"'{key[:20]} {key[20:]}'", f"\ufeff{key}\u2069 "):
            with visit(browser, stage.url + path) as made:
                made.enter(pasted)
        with visit(browser, stage.url + path) as made:
            for wrong in ("lk_😀", "ключ", f"Bearer:{key}"):
                made.page.get_by_label("Key").fill(wrong)
                made.page.keyboard.press("Enter")
                expect(made.page.locator("#gate-error")).to_contain_text("copy it anew")


def test_a_till_that_may_not_refund_says_so(browser: Browser, stage: Stage) -> None:
    with visit(browser, f"{stage.url}/till") as till:
        till.enter(stage.key(Role.POS, terminal="T-1"))
        stage.plan("notification-lost")
        start_sale(till.page)
        stage.pay(number_of(till.page))
        till.page.get_by_role("button", name="Cancel the sale").click()
        till.page.get_by_role("button", name="Cancel and give the money back").click()
        expect(till.page.locator("#current .error")).to_contain_text("may not give money back")
        expect(till.page.locator("#current .word")).to_have_text("Paid")
        stage.plan()
