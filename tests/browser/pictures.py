"""Photograph the real pages for the README: ``python -m tests.browser.pictures``."""

import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, expect

from listener.keys import Role
from tests.browser.stage import Stage, running_stage
from tests.browser.visit import PHONE, Scheme, Visit, chromium, visit

PICTURES: Final = Path(__file__).parents[2] / "docs" / "pictures"
BYTES_MAX: Final = 256 * 1024
SIZE: Final = (1240, 720)
PLOT_MS: Final = 75_000
NUMBER: Final = 297_553_638_301_000_000
WORDS: Final = ("success",) * 14 + ("closed",) * 3 + ("refunded", "failed", "pending", "init")


def main() -> None:
    """Make every picture."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        running_stage(Path(directory)) as stage,
        chromium() as browser,
        busy(stage),
        visit(browser, f"{stage.url}/till", size=SIZE) as till,
    ):
        till.enter(stage.key(Role.POS, terminal="T-42"))
        with ExitStack() as life:
            watching = watch(browser, stage, life)
            doubts(stage)
            till.page.wait_for_timeout(PLOT_MS)
            take_till(till.page, watching["light"].page)
            stage.plan("cancel-timeout-unheard")
            till.page.get_by_label("Amount").fill("48.00")
            till.page.get_by_role("button", name="Start the sale").click()
            expect(till.page.locator("#current")).to_contain_text("48.00")
            till.page.get_by_role("button", name="Cancel the sale").click()
            take_dashboards(watching)
            stage.plan()


def watch(browser: Browser, stage: Stage, life: ExitStack) -> dict[str, Visit]:
    """Open the dashboard in every way in which a picture is taken."""
    admin = stage.key(Role.ADMIN)
    schemes: tuple[Scheme, ...] = ("light", "dark")
    opened = {
        str(scheme): life.enter_context(visit(browser, f"{stage.url}/", size=SIZE, scheme=scheme))
        for scheme in schemes
    }
    opened["phone"] = life.enter_context(visit(browser, f"{stage.url}/", size=PHONE, scale=2))
    for one in opened.values():
        one.enter(admin)
    return opened


def take_till(till: Page, head: Page) -> None:
    """Start a sale that is cancelled and one that waits; photograph the till."""
    till.get_by_role("button", name="Start the sale").click()
    till.get_by_role("button", name="Cancel the sale").click()
    expect(till.locator("#current .word")).to_have_text("Cancelled")
    till.get_by_label("Amount").fill("24.50")
    till.get_by_role("button", name="Start the sale").click()
    expect(till.get_by_role("img", name="Code to pay 24.50")).to_be_visible()
    expect(head.locator("#rows")).to_contain_text("24.50")
    shoot(till, "till")


def take_dashboards(watching: dict[str, Visit]) -> None:
    """Photograph the dashboard, and one story."""
    for one in watching.values():
        expect(one.page.locator("#attention")).to_contain_text("Cancelling …")
    shoot(watching["light"].page, "dashboard")
    shoot(watching["dark"].page, "dashboard-dark")
    shoot(watching["phone"].page, "phone")
    page = watching["light"].page
    page.locator("#attention a").first.click()
    expect(page.locator("#story .timeline li").first).to_be_visible()
    shoot(page, "story")


def shoot(page: Page, name: str) -> None:
    """Save what a page shows."""
    path = PICTURES / f"{name}.png"
    page.evaluate("document.activeElement?.blur()")
    page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size < BYTES_MAX, f"{path.name} is too large for a README"
    sys.stdout.write(f"{path.name}: {path.stat().st_size // 1024} KiB\n")


def doubts(stage: Stage) -> None:
    """Send what needs a person."""
    stage.notify(f"{NUMBER}", "success", amount="86.40", reference="R-2026-10388")
    stage.notify(f"{NUMBER}", "closed", amount="86.40", reference="R-2026-10388")
    for _ in range(3):
        stage.notify(f"{NUMBER}", "success", amount="86.40", reference="R-2026-10388")


@contextmanager
def busy(stage: Stage) -> Iterator[None]:
    """Send notifications, as on a busy day, until the context ends."""
    ended = threading.Event()
    chance = random.Random(7)

    def bring() -> None:
        place = 0
        while not ended.wait(chance.expovariate(2.5)):
            place += 1
            amount = f"{chance.choice((3.5, 4.8, 7.25, 12, 18.9, 24.5, 64, 110)):.2f}"
            reference = f"R-2026-{10_400 + place}"
            number = f"{NUMBER + place * 911}"
            stage.notify(number, chance.choice(WORDS), amount=amount, reference=reference)

    thread = threading.Thread(target=bring)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
