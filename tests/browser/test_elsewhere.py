"""A browser behind a sign-on proxy, and on a page of another origin."""

import re

from playwright.sync_api import Browser, Route, expect

from listener.keys import Role
from tests.browser.stage import STORE_NO, Stage
from tests.browser.visit import visit

JWT = "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzc28ifQ.c2ln"
# What a page does with the listener at `url`, and how each ended.
USE = """async ([url, key, storeNo]) => {
  const found = {};
  const asked = async (name, method, path, body) => {
    const headers = { Authorization: `Bearer ${key}`, 'X-Listener-Key': key };
    if (body) headers['Content-Type'] = 'application/json';
    if (body) headers['Idempotency-Key'] = name;
    const text = body && JSON.stringify(body);
    try {
      const answer = await fetch(url + path, { method, headers, body: text });
      found[name] = answer.status;
      return await answer.json();
    } catch (error) {
      found[name] = String(error);
      return {};
    }
  };
  const sale = { reference: 'elsewhere-1', amount: '1.00', currency: 'USD', settleCurrency: 'USD',
    storeNo, vendor: 'alipay' };
  const { transactionNo } = await asked('start', 'POST', '/v1/transactions', sale);
  await asked('cancel', 'POST', `/v1/transactions/${transactionNo}/cancel`, {});
  await asked('list', 'GET', '/v1/transactions');
  await asked('poll', 'GET', '/v1/pos/events?after=earliest');
  await asked('refusal', 'GET', '/v1/ledger');
  await asked('metrics', 'GET', '/metrics');
  try {
    const { follow } = await import(`${url}/static/pos-client.js`);
    const follower = follow(url, { key, WebSocket: null });
    for await (const event of follower) {
      found.client = event.data.status;
      break;
    }
  } catch (error) {
    found.client = String(error);
  }
  return found;
}"""


def test_the_pages_work_behind_a_proxy_with_an_authorization_of_its_own(
    browser: Browser, stage: Stage
) -> None:
    def sign_on(route: Route) -> None:
        route.continue_(headers={**route.request.headers, "authorization": JWT})

    with visit(browser, f"{stage.url}/till") as till, visit(browser, f"{stage.url}/") as head:
        for made in (till, head):
            made.page.route(re.compile(f"^{re.escape(stage.url)}/"), sign_on)
        till.enter(stage.key(Role.POS, terminal="T-1"))
        head.enter(stage.key(Role.ADMIN))
        till.page.get_by_role("button", name="Start the sale").click()
        expect(till.page.get_by_role("img", name="Code to pay 13.00 USD")).to_be_visible()
        expect(head.page.locator("#health .tone-good").first).to_be_visible()


def test_a_page_of_the_setting_uses_the_whole_api_and_any_other_nothing(
    browser: Browser, stage: Stage
) -> None:
    key = stage.key(Role.POS, terminal="T-9")
    with visit(browser, f"{stage.sandbox_url}/") as listed:
        found = listed.page.evaluate(USE, [stage.url, key, STORE_NO])
        assert found.pop("metrics") == "TypeError: Failed to fetch"
        assert found.pop("client") == "created"
        assert found == {"start": 201, "cancel": 200, "list": 200, "poll": 200, "refusal": 403}
        listed.complaints.clear()
    # The same page by another name is another origin.
    with visit(browser, f"{stage.sandbox_url.replace('127.0.0.1', 'localhost')}/") as other:
        found = other.page.evaluate(USE, [stage.url, key, STORE_NO])
        assert {str(how).partition(":")[0] for how in found.values()} == {"TypeError"}
        other.complaints.clear()
