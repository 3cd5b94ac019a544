/**
 * The reference till: how a POS starts sales, cancels them, and hears what becomes of them.
 *
 * Everything is in three moves. A sale is started and cancelled by the JSON API (`api.js`); what
 * becomes of it is heard by `follow` of the POS client (`pos-client.js`), and nowhere else; and
 * only the newest state of a sale is shown (`stateVersion`).
 */

import { Api, pathOf } from './api.js';
import { at, h, reconcile, say } from './dom.js';
import { gate, keep } from './gate.js';
import { Live } from './live.js';
import { SNAPSHOT, follow } from './pos-client.js';
import { showSale, standingOf } from './sale.js';
import { badge, money } from './statuses.js';

const RECENT = 20;
const SALES_MAX = 100;
const TERMINAL = 'listener-till-terminal';
const CODE = 'listener-till-code ';

class Till {
  #api;
  #follower;
  #live = new Live();
  /** By transaction number, the newest last; each `{transaction, code, steps, refusal}`. */
  #sales = new Map();
  #chosen;

  constructor(key) {
    this.#api = new Api(key);
    this.#follower = follow(location.origin, {
      key,
      onStatus: (status) => this.#showStatus(status),
      // The ledger is another one: what was shown is of the old one. A snapshot follows.
      onResync: () => this.#sales.clear(),
    });
    this.#listen().catch((error) => leave(error.message));
    this.#draw();
  }

  /** Read the store's last sales, so that a reloaded page shows what it showed. */
  async readRecent() {
    const { data } = await this.#api.get('/v1/transactions', { query: { limit: RECENT } });
    data.reverse().forEach((transaction) => this.#take(transaction));
    this.#forgetCodes();
    this.#draw();
  }

  /** Start a sale; repeating it with the same idempotency key starts no other. */
  async start(order, idempotencyKey) {
    const headers = { 'Idempotency-Key': idempotencyKey };
    const started = await this.#api.post('/v1/transactions', order, { headers });
    const sale = this.#take(started);
    // What a wallet scans is the link; Pockyt's qrcodeUrl may lead to a picture of it.
    sale.code = started.deepLink ?? started.qrcodeUrl ?? undefined;
    // The listener keeps no codes, and the customer may scan while the page is loaded again.
    if (sale.code) keep(CODE + started.transactionNo, sale.code);
    this.choose(started.transactionNo);
    // A scanner types where the focus is: left in the form, its code would start another sale.
    at('barcode')?.focus({ preventScroll: true });
  }

  /** Show a sale as the one in hand; on a small screen, bring it into sight. */
  choose(transactionNo) {
    this.#chosen = transactionNo;
    this.#draw();
    // Once the page is laid out with it: the sale moves above the form on a small screen.
    requestAnimationFrame(() => {
      const { top, bottom } = at('current').getBoundingClientRect();
      if (top < 0 || bottom > innerHeight) at('current').scrollIntoView({ block: 'start' });
    });
  }

  end() {
    this.#follower.close();
    this.#live.end();
  }

  /** Hear every event of this till's store: once, in order, acknowledged when it was shown. */
  async #listen() {
    for await (const { type, time, data } of this.#follower) {
      this.#take(data, type === SNAPSHOT ? undefined : { type, time, evidence: data.evidence });
      this.#draw();
    }
  }

  /** Keep what is newer than what is known. */
  #take(transaction, step) {
    const held = this.#sales.get(transaction.transactionNo);
    const code = sessionStorage.getItem(CODE + transaction.transactionNo) ?? undefined;
    const sale = held ?? { transaction, code, steps: [] };
    if (transaction.stateVersion >= sale.transaction.stateVersion) {
      sale.transaction = { ...sale.transaction, ...transaction };
    }
    if (step !== undefined) sale.steps.push(step);
    this.#sales.set(transaction.transactionNo, sale);
    if (this.#sales.size > SALES_MAX) {
      // The sale in hand stays, however many others the store has meanwhile.
      this.#sales.delete([...this.#sales.keys()].find((number) => number !== this.#chosen));
      this.#forgetCodes();
    }
    return sale;
  }

  /** Forget the codes of sales that are shown no longer: a tab that is open for months would be full. */
  #forgetCodes() {
    for (const name of Object.keys(sessionStorage)) {
      const isCode = name.startsWith(CODE);
      if (isCode && !this.#sales.has(name.slice(CODE.length))) sessionStorage.removeItem(name);
    }
  }

  #showStatus(status) {
    this.#live.show(status);
    if (status.state !== 'live' || at('store').value) return;
    // The key's scope says which store this is.
    const [, storeNo] = this.#follower.streams[0]?.split('/') ?? [];
    at('store').value = storeNo && storeNo !== '-' ? storeNo : '';
    say(at('where'), storeNo ? `Till · store ${storeNo}` : 'Till');
    at('place').open = !at('store').value;
  }

  #draw() {
    const sale = this.#sales.get(this.#chosen);
    showSale(sale, {
      api: this.#api,
      onCancel: (refundIfPaid) => this.#act(sale, 'cancel', refundIfPaid ? { refundIfPaid } : {}),
      onPay: (paymentBarcode) => this.#act(sale, 'pay', { paymentBarcode }),
    });
    const sales = [...this.#sales.values()].reverse().slice(0, RECENT);
    reconcile(at('recent'), sales, {
      keyOf: ({ transaction }) => transaction.transactionNo,
      signOf: ({ transaction, steps }) =>
        `${transaction.stateVersion} ${steps.length} ${transaction.transactionNo === this.#chosen}`,
      draw: (one) => this.#drawRecent(one),
    });
    at('recent-none').hidden = sales.length > 0;
  }

  #drawRecent(sale) {
    const { transaction } = sale;
    const { transactionNo, reference } = transaction;
    const attributes = {
      type: 'button',
      'data-focus': 'sale',
      'aria-current': transactionNo === this.#chosen ? 'true' : undefined,
      onclick: () => this.choose(transactionNo),
    };
    const what = h(
      'span',
      { class: 'what' },
      money(transaction),
      h('small', {}, reference ?? transactionNo),
    );
    return h(
      'li',
      {},
      h('button', attributes, what, badge(transaction, { held: false, as: standingOf(sale) })),
    );
  }

  /** Cancel or charge; the answer is the transaction as it stands, and events tell the rest. */
  async #act(sale, action, body) {
    sale.refusal = undefined;
    try {
      this.#take(await this.#api.post(pathOf(sale.transaction, action), body));
    } catch (error) {
      sale.refusal = error;
    }
    this.#draw();
  }
}

/** Make a text that no other request has. */
function uniqueId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

function suggestReference() {
  at('reference').value = `till-${uniqueId().slice(0, 8)}`;
}

function orderOf() {
  const value = (id) => at(id).value.trim();
  const currency = value('currency');
  keep(TERMINAL, value('terminal'));
  return {
    reference: value('reference'),
    amount: value('amount'),
    currency,
    settleCurrency: 'USD',
    storeNo: value('store'),
    terminal: value('terminal') || undefined,
    vendor: value('vendor') || undefined,
  };
}

let till;
let idempotencyKey = uniqueId();

// A key held down is pressed once: each further sale would be one more that a customer can pay.
at('main').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.repeat) event.preventDefault();
});
// Another order is another request; the same one, sent again after a failure, is not.
at('sale').addEventListener('input', () => {
  idempotencyKey = uniqueId();
});
at('sale').addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = at('sale').querySelector('button.main');
  button.disabled = true;
  say(at('sale-error'), '');
  try {
    await till.start(orderOf(), idempotencyKey);
    idempotencyKey = uniqueId();
    suggestReference();
  } catch (error) {
    say(at('sale-error'), error.message);
  }
  button.disabled = false;
});

at('terminal').value = sessionStorage.getItem(TERMINAL) ?? '';
suggestReference();
const leave = gate('listener-till-key', async (key) => {
  const entered = new Till(key);
  try {
    await entered.readRecent();
  } catch (error) {
    entered.end();
    throw error.status === 401
      ? new Error('This key is not known here, or it was revoked.')
      : error;
  }
  till = entered;
  return () => entered.end();
});
