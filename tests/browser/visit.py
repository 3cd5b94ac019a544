"""Look at a page in Chromium, and record what it requested and what it complained about."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.support import needs

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name)) is not None
    ),
    None,
)
# As root, without a screen, and without what a browser does for itself on the network.
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 15_000
DESKTOP = (1280, 800)
PHONE = (360, 740)
# A refused request is a line on the console as well: nothing is wrong with the page.
_REFUSED = re.compile(r"Failed to load resource|WebSocket connection to .* failed")

Scheme = Literal["light", "dark"]


@dataclass(slots=True, kw_only=True)
class Visit:
    """A page in a tab of its own."""

    page: Page
    urls: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def enter(self, key: str) -> None:
        """Type a key, and wait until the page is live."""
        self.page.get_by_label("Key").fill(key)
        self.page.keyboard.press("Enter")
        self.expect_live()

    def expect_live(self) -> None:
        expect(self.page.locator("#live")).to_have_text("Live")

    def expect_not_live(self) -> None:
        expect(self.page.locator("#stale")).to_be_visible()
        expect(self.page.locator("#stale")).to_contain_text("Not live since")
        expect(self.page.locator("#live")).to_have_text("Not live")

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _REFUSED.search(message.text):
            self.complaints.append(message.text)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium."""
    if CHROMIUM is None:
        needs.missing("chromium")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: Scheme = "light",
    scale: float = 1,
) -> Iterator[Visit]:
    """Open a page; at the end check that it had nothing to complain about."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        device_scale_factor=scale,
        has_touch=size == PHONE,
        locale="en-GB",
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    made = Visit(page=page)

    def asked(request: Request) -> None:
        made.urls.append(request.url)

    page.on("console", lambda message: made.hear(message))  # noqa: PLW0108 - Playwright marks what it calls
    page.on("pageerror", lambda error: made.complaints.append(str(error)))
    page.on("request", asked)
    page.on("websocket", lambda socket: made.urls.append(socket.url))
    try:
        page.goto(url)
        yield made
        assert made.complaints == []
    finally:
        context.close()
