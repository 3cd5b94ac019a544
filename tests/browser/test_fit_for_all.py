"""The pages work by keyboard, on a phone, in the dark, and with nothing from elsewhere."""

import json
from collections.abc import Iterator
from importlib import resources
from typing import get_args
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from listener.keys import Role
from tests.browser.stage import Stage
from tests.browser.visit import PHONE, Scheme, Visit, visit

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
NUMBER = "297553638302000001"
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


@pytest.fixture(scope="module")
def busy_stage(stage: Stage) -> Stage:
    """A stage whose ledger holds one of everything that the pages show."""
    for place, status in enumerate(
        ("init", "pending", "success", "failed", "closed", "refunded", "frozen")
    ):
        stage.notify(f"29755363830200010{place}", status)
    stage.notify(NUMBER, "success")
    stage.notify(NUMBER, "closed")
    stage.notify(NUMBER, "success", note="a&b")
    return stage


@pytest.fixture
def head(browser: Browser, busy_stage: Stage) -> Iterator[Visit]:
    with visit(browser, f"{busy_stage.url}/") as made:
        yield made


def findings(page: Page) -> list[str]:
    """Return what axe finds serious or critical, in light and in dark mode."""
    page.evaluate(AXE)
    found = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found += findings_now(page)
    return found


def findings_now(page: Page) -> list[str]:
    # During an animation, the colours of its middle would count.
    page.evaluate("document.getAnimations().forEach((one) => one.finish())")
    found: dict[str, list[dict[str, object]]] = page.evaluate(
        "axe.run(document, { resultTypes: ['violations'] })"
    )
    return [
        json.dumps({name: one[name] for name in ("id", "help", "nodes")})[:2_000]
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def test_axe_finds_nothing_serious_on_the_dashboard(head: Visit, busy_stage: Stage) -> None:
    assert findings(head.page) == []
    head.enter(busy_stage.key(Role.ADMIN))
    expect(head.page.locator("#attention li").first).to_be_visible()
    expect(head.page.locator("#health div").first).to_be_visible()
    assert findings(head.page) == []
    head.page.get_by_role("link", name="Story of ref-000001").click()
    head.page.locator("#story").get_by_role("button", name="Decide").click()
    assert findings(head.page) == []


def test_axe_finds_nothing_serious_on_the_till(browser: Browser, busy_stage: Stage) -> None:
    with visit(browser, f"{busy_stage.url}/till") as till:
        assert findings(till.page) == []
        till.enter(busy_stage.key(Role.POS, terminal="T-1"))
        till.page.get_by_role("button", name="Start the sale").click()
        expect(till.page.get_by_role("img", name="Code to pay")).to_be_visible()
        assert findings(till.page) == []
        till.page.get_by_role("button", name="Cancel the sale").click()
        expect(till.page.locator("#current .word")).to_have_text("Cancelled")
        assert findings(till.page) == []


@pytest.mark.parametrize("path", ["/", "/till"])
def test_nothing_comes_from_elsewhere_and_no_key_is_in_an_address(
    browser: Browser, busy_stage: Stage, path: str
) -> None:
    key = busy_stage.key(Role.POS, terminal="T-1") if path == "/till" else None
    key = key or busy_stage.key(Role.ADMIN)
    with visit(browser, busy_stage.url + path) as made:
        made.enter(key)
        made.page.locator("#recent button, #rows a").first.click()
        own = urlsplit(busy_stage.url).netloc
        assert {urlsplit(url).netloc for url in made.urls} == {own}
        assert any(url.endswith("/v1/pos/stream") for url in made.urls)
        assert not [url for url in made.urls if "lk_" in url or key in url]
        # A page that breaks its own policy says so on the console; `visit` asserts that none did.
        blocked = made.page.evaluate(
            "import('data:text/javascript,').then(() => 'run', () => 'blocked')"
        )
        assert blocked == "blocked"
        assert [text for text in made.complaints if "Content Security Policy" in text]
        made.complaints.clear()


def test_no_page_is_wider_than_a_phone(browser: Browser, busy_stage: Stage) -> None:
    for path, role in (("/", Role.ADMIN), ("/till", Role.POS)):
        with visit(browser, busy_stage.url + path, size=PHONE) as made:
            assert is_narrow(made.page)
            made.enter(busy_stage.key(role, terminal="T-1" if role is Role.POS else None))
            if role is Role.POS:
                made.page.get_by_role("button", name="Start the sale").click()
                expect(made.page.get_by_role("img", name="Code to pay")).to_be_visible()
            else:
                expect(made.page.locator("#attention li").first).to_be_visible()
            assert is_narrow(made.page)
            if role is Role.ADMIN:
                made.page.get_by_role("link", name="Story of ref-000001").click()
                expect(made.page.locator("#story .timeline li").first).to_be_visible()
                assert is_narrow(made.page)
                width = made.page.evaluate("document.querySelector('#story').scrollWidth")
                assert width <= PHONE[0]


def is_narrow(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_the_list_keeps_to_its_room(head: Visit, busy_stage: Stage) -> None:
    longest = {"reference": "r" * 64, "amount": "123456789012.34"}
    busy_stage.notify("297553638302000200", "success", **longest)
    head.enter(busy_stage.key(Role.ADMIN))
    expect(head.page.locator("#rows")).to_contain_text("123456789012.34")
    right = "(name) => document.querySelector(name).getBoundingClientRect().right"
    for width in (768, 1_030, 1_130, 1_200, 1_600):
        head.page.set_viewport_size({"width": width, "height": 800})
        room = head.page.evaluate(right, "#transactions")
        assert head.page.evaluate(right, "#transactions table") <= room + 1, width
        assert is_narrow(head.page)


def test_the_dashboard_works_by_keyboard_alone(head: Visit, busy_stage: Stage) -> None:
    page, keyboard = head.page, head.page.keyboard
    # The field has the focus when the page opens.
    keyboard.type(busy_stage.key(Role.ADMIN))
    keyboard.press("Enter")
    head.expect_live()
    expect(page.locator("#rows tr").first).to_be_visible()
    tab_to(page, "#search")
    keyboard.type("ref-000001")
    expect(page.locator("#rows tr")).to_have_count(1)
    tab_to(page, "#rows a")
    keyboard.press("Enter")
    expect(page.locator("#story")).to_be_visible()
    tab_to(page, "#story summary")
    keyboard.press("Enter")
    expect(page.locator("#story details[open]")).to_be_visible()
    keyboard.press("Escape")
    expect(page.locator("#story")).to_be_hidden()
    expect(page.locator("#rows a")).to_be_focused()


def test_the_filters_answer_to_the_arrow_keys(head: Visit, busy_stage: Stage) -> None:
    head.enter(busy_stage.key(Role.ADMIN))
    tab_to(head.page, "#filters input")
    for _ in ("Created", "Pending", "Paid", "Failed"):
        head.page.keyboard.press("ArrowRight")
    expect(head.page.get_by_label("Failed")).to_be_checked()
    expect(head.page.locator("#rows tr .status").first).to_have_text("Failed")


def test_the_till_works_by_keyboard_alone(browser: Browser, busy_stage: Stage) -> None:
    with visit(browser, f"{busy_stage.url}/till") as till:
        page, keyboard = till.page, till.page.keyboard
        keyboard.type(busy_stage.key(Role.POS, terminal="T-1"))
        keyboard.press("Enter")
        till.expect_live()
        tab_to(page, "#amount")
        keyboard.type("7.50")
        keyboard.press("Enter")
        expect(page.locator("#current .price")).to_contain_text("7.50")
        tab_to(page, "#cancel")
        keyboard.press("Space")
        expect(page.locator("#current .word")).to_have_text("Cancelled")


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def test_a_storys_sentences_have_the_width_of_a_phone(browser: Browser, busy_stage: Stage) -> None:
    with visit(browser, f"{busy_stage.url}/#/200043/{NUMBER}", size=PHONE) as head:
        head.enter(busy_stage.key(Role.ADMIN))
        sentence = head.page.locator("#story .timeline .what").first
        expect(sentence).to_be_visible()
        width = sentence.evaluate("(sentence) => sentence.getBoundingClientRect().width")
        assert width > PHONE[0] / 2


def test_what_is_chosen_is_marked_where_the_system_sets_the_colours(
    browser: Browser, busy_stage: Stage
) -> None:
    with visit(browser, f"{busy_stage.url}/") as head:
        head.page.emulate_media(forced_colors="active")
        head.enter(busy_stage.key(Role.ADMIN))
        colours = [
            head.page.locator(f"#filters label:has-text('{word}')").evaluate(
                "(label) => getComputedStyle(label).backgroundColor"
            )
            for word in ("All", "Created", "Paid")
        ]
        assert colours[0] != colours[1] == colours[2]
    with visit(browser, f"{busy_stage.url}/till") as till:
        till.page.emulate_media(forced_colors="active")
        till.enter(busy_stage.key(Role.POS, terminal="T-1"))
        till.page.locator("#recent button").first.click()
        # The page marks it once the sale was read.
        chosen = till.page.locator("#recent button").first
        expect(chosen).to_have_css("background-color", colours[0])
