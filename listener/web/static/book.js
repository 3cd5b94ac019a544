/** Hold the transactions that the dashboard knows, and keep them up to date. */

import { pathOf } from './api.js';
import { caseOf } from './attention.js';
import { queryOf, shows } from './filters.js';

const REREAD_MS = 250;
const REREAD_MAX = 24;
const SCAN_MS = 15_000;
const HELD_MAX = 5000;
const PAGE = 100;
const SCAN_PAGES_MAX = 4;
const SCAN_PAGE = 500;
// What may need a person. A cancel can be open, and a notification held, whatever the status.
const DOUBTS = [
  { status: 'conflict' },
  { cancelState: 'unresolved' },
  { held: true },
  { status: 'unknown' },
  { cancelState: 'requested' },
];

/** Name a transaction: two merchants may share a number. */
export function keyOf({ merchantNo, transactionNo }) {
  return `${merchantNo}/${transactionNo}`;
}

export class Book {
  #api;
  #held = new Map();
  #onChange;
  #toRead = new Map();
  #timer;
  #scannedAt = -Infinity;
  #filter;
  #cursor = null;
  /** The keys of the list, as far as it was read. */
  #oldest = '';

  constructor(api, { filter, onChange }) {
    this.#api = api;
    this.#filter = filter;
    this.#onChange = onChange;
  }

  get hasOlder() {
    return this.#cursor !== null;
  }

  get(key) {
    return this.#held.get(key);
  }

  /** Everything that is known, newest first. */
  all() {
    return [...this.#held.values()].sort(newestFirst);
  }

  /** The list under the present filter, as far back as it was read without a gap. */
  list() {
    return this.shown().filter((one) => one.createdAt >= this.#oldest);
  }

  /** Everything that is known of what the present filter shows, newest first. */
  shown() {
    return this.all().filter((one) => shows(this.#filter, one));
  }

  get filter() {
    return this.#filter;
  }

  /** Read the newest page under a filter. */
  async begin(filter = this.#filter) {
    this.#filter = filter;
    const query = { ...queryOf(filter), limit: PAGE };
    const page = await this.#api.get('/v1/transactions', { query });
    if (filter !== this.#filter) return; // Somebody chose another one meanwhile.
    this.#takePage(page);
  }

  /** Read the page before the oldest that is shown. */
  async older() {
    const filter = this.#filter;
    const query = { ...queryOf(filter), limit: PAGE, cursor: this.#cursor };
    const page = await this.#api.get('/v1/transactions', { query });
    if (filter === this.#filter) this.#takePage(page);
  }

  /** Read everything that may need a person, however old it is. */
  async scan() {
    this.#scannedAt = performance.now();
    // One after the other: a key has one search at a time.
    for (const doubt of DOUBTS) await this.#scanOne(doubt);
    this.#onChange();
  }

  /** Read the newest whose reference or number holds a text, and return their keys. */
  async find(text) {
    const { data, nextCursor } = await this.#api.get('/v1/transactions', {
      query: { ...queryOf(this.#filter), contains: text, limit: PAGE },
    });
    data.forEach((row) => this.#put(row));
    this.#onChange();
    return { keys: data.map(keyOf), hasMore: nextCursor !== null };
  }

  /** Show what an event says at once; the rest of the row is read soon after. */
  hear(rows) {
    for (const row of rows) {
      const key = keyOf(row);
      const held = this.#held.get(key);
      if (held && row.stateVersion > held.stateVersion) {
        const { type, time, evidence, reason, ...members } = row;
        this.#held.set(key, { ...held, ...members, updatedAt: time ?? held.updatedAt });
      }
      this.#toRead.set(key, row);
    }
    this.#onChange();
    this.#timer ??= setTimeout(() => this.#readAgain(), REREAD_MS);
  }

  /** Store a transaction as the API returned it. */
  take(row) {
    this.#put(row);
    this.#onChange();
  }

  forget() {
    this.#held.clear();
    this.#toRead.clear();
    this.#cursor = null;
    this.#oldest = '';
    this.#onChange();
  }

  #takePage({ data, nextCursor }) {
    data.forEach((row) => this.#put(row));
    this.#cursor = nextCursor;
    this.#oldest = nextCursor === null ? '' : data.at(-1).createdAt;
    this.#onChange();
  }

  #put(row) {
    const { entries, ...transaction } = row;
    const held = this.#held.get(keyOf(row));
    // An answer may have been overtaken by an event.
    if (held === undefined || row.stateVersion >= held.stateVersion) {
      this.#held.set(keyOf(row), transaction);
    }
  }

  async #readAgain() {
    const rows = [...this.#toRead.values()];
    this.#toRead.clear();
    try {
      if (rows.length > REREAD_MAX) await this.#readMany();
      else for (const row of await Promise.all(rows.map((one) => this.#read(one)))) this.#put(row);
    } catch {
      // The listener went away; what is missed is read when it is live again.
    }
    this.#timer = undefined;
    if (this.#toRead.size > 0) this.#timer = setTimeout(() => this.#readAgain(), REREAD_MS);
    this.#onChange();
  }

  /** Many at once are read by the page, which is cheaper; what may need a person is read less often. */
  async #readMany() {
    await this.begin();
    if (performance.now() - this.#scannedAt > SCAN_MS) await this.scan();
    // A page that stays open for weeks must hold what it shows, and not the whole ledger.
    for (const row of this.all().slice(HELD_MAX)) {
      if (!caseOf(row)) this.#held.delete(keyOf(row));
    }
  }

  #read({ merchantNo, transactionNo }) {
    return this.#api.get(pathOf({ transactionNo }), { query: { merchantNo } });
  }

  async #scanOne(doubt) {
    let cursor;
    for (let pages = 0; pages < SCAN_PAGES_MAX && cursor !== null; pages += 1) {
      const page = await this.#api.get('/v1/transactions', {
        query: { ...doubt, limit: SCAN_PAGE, cursor },
      });
      page.data.forEach((row) => this.#put(row));
      cursor = page.nextCursor;
    }
  }
}

function newestFirst(one, other) {
  if (one.createdAt !== other.createdAt) return one.createdAt < other.createdAt ? 1 : -1;
  return keyOf(one) < keyOf(other) ? 1 : -1;
}
