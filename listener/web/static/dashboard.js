/** The dashboard: connect the feed, the API and what is shown. */

import { Activity } from './activity.js';
import { Api } from './api.js';
import { showAttention } from './attention.js';
import { Book, keyOf } from './book.js';
import { at, say } from './dom.js';
import { hear } from './feed.js';
import { chosen, makeFilters, offerStores } from './filters.js';
import { gate, roleOf } from './gate.js';
import { readHealth, showHealth, showTerminals } from './health.js';
import { makeSearch, matching, showList } from './list.js';
import { Live, isLive } from './live.js';
import { parseMetrics } from './metrics.js';
import { Story, askPockyt } from './story.js';
import { every, present } from './times.js';

// However many events come, the page is not drawn more often than this.
const DRAW_MS = 80;
const METRICS_SECONDS = 3;
const HEALTH_SECONDS = 10;
const STORY_SECONDS = 10;
const REVOKED = 'This key is not known any more: it was revoked, or this is another ledger.';

let dashboard;

/** Start with a key; throws if something is wrong with it. */
async function enter(key) {
  const role = await roleOf(key);
  if (role === 'pos') {
    throw new Error(
      'This is a till’s key: it opens the till page. The dashboard needs an admin or a ledger key.',
    );
  }
  dashboard = new Dashboard(key, role);
  return () => {
    dashboard.end();
    dashboard = undefined;
  };
}

class Dashboard {
  #api;
  #book;
  #story;
  #live;
  #activity = new Activity();
  #metrics;
  #unseen = [];
  /** Sales to which Pockyt has given no number; undefined until they were read. */
  #sales;
  /** That what needs a person was not read yet, or why not; '' once it was. */
  #unread = 'Reading …';
  #isScanning = false;
  #health;
  #canAct;
  #search = '';
  /** What the listener found; undefined until it has answered. */
  #found;
  /** The newest reading of the list, while it is under way. */
  #reading;
  /** Why the list was not read, the last time. */
  #problem;
  #isListRead = false;
  #drawing;
  #ends;

  constructor(key, role) {
    const isAdmin = role === 'admin';
    this.#canAct = isAdmin;
    this.#api = new Api(key);
    this.#book = new Book(this.#api, {
      filter: chosen(),
      onChange: () => this.#drawSoon(),
    });
    this.#live = new Live((isNow) => (isNow ? this.#read() : this.#showHealth()));
    this.#story = new Story(this.#api, {
      canAct: isAdmin,
      onRead: (story) => this.#book.take(story),
      onClose: () => history.replaceState(null, '', location.pathname + location.search),
    });
    at('limits').hidden = isAdmin;
    say(
      at('limits'),
      isAdmin
        ? ''
        : 'This key may look only. Asking Pockyt, deciding and the plot need an admin key.',
    );
    if (!isAdmin) this.#activity.refuse('Needs an admin key.');
    this.#ends = [
      hear({
        key,
        role,
        api: this.#api,
        onChange: (rows) => this.#hear(rows),
        onReset: () => this.#book.forget(),
        onStatus: (status) => this.#live.show(status),
        onRefused: (error) => leave(error.status === 401 ? REVOKED : error.message),
      }),
      ...(isAdmin ? [every(METRICS_SECONDS, () => this.#readMetrics())] : []),
      every(HEALTH_SECONDS, () => this.#readHealth()),
      // Repeated deliveries are counted without an event.
      every(STORY_SECONDS, () => this.#routed && this.#story.refresh(this.#routed)),
    ];
    this.route();
  }

  end() {
    this.#ends.forEach((end) => end());
    this.#live.end();
    this.#story.close();
    this.#book.forget();
    for (const id of ['rows', 'attention', 'terminals', 'health', 'activity']) {
      at(id).replaceChildren();
    }
  }

  async filter() {
    this.#isListRead = false;
    await this.#readList(this.#book.begin(chosen()));
    if (this.#search) await this.search(this.#search);
    this.#draw();
  }

  older() {
    return this.#readList(this.#book.older());
  }

  /** Wait for a part of the list; what is missing because it failed is said above it. */
  async #readList(reading) {
    this.#problem = undefined;
    this.#reading = reading;
    this.#drawSoon();
    await this.#try(
      reading.catch((error) => {
        if (this.#reading === reading) this.#problem = error.message;
        throw error;
      }),
    );
    if (this.#reading === reading) this.#reading = undefined;
    this.#draw();
  }

  async search(text) {
    this.#search = text;
    this.#found = undefined;
    this.#draw();
    if (!text) return;
    let found;
    try {
      found = await this.#book.find(text);
    } catch (error) {
      found = { keys: [], problem: error.message };
    }
    if (this.#search !== text) return;
    this.#found = found;
    this.#draw();
  }

  /** Open the story that the address names. */
  route() {
    if (this.#routed) this.#story.open(this.#routed);
    else if (at('story').open) this.#story.close();
  }

  get #routed() {
    const [, merchantNo, transactionNo] = location.hash.split('/').map(decoded);
    return transactionNo ? { merchantNo, transactionNo } : undefined;
  }

  #hear(rows) {
    this.#book.hear(rows);
    const open = this.#routed;
    if (open && rows.some((row) => keyOf(row) === keyOf(open))) this.#story.refresh(open);
  }

  /** Read everything again: at the start, and whenever it is live again. */
  async #read() {
    const list = this.#readList(this.#book.begin());
    await this.#try(Promise.all([list, this.#scan(), this.#readHealth()]));
  }

  /** Read what needs a person. Until that works, the page says so, and tries again. */
  async #scan() {
    if (this.#isScanning) return;
    this.#isScanning = true;
    try {
      await this.#book.scan();
      this.#unread = '';
    } catch (error) {
      this.#unread = `Not all that may need you was read: ${error.why ?? error.message}`;
      throw error;
    } finally {
      this.#isScanning = false;
      this.#drawSoon();
    }
  }

  async #readMetrics() {
    const text = await this.#try(this.#api.get('/metrics'));
    if (text === undefined) return;
    this.#metrics = parseMetrics(text);
    this.#activity.take(this.#metrics);
  }

  async #readHealth() {
    const [health, terminals, sales] = await Promise.all([
      readHealth(this.#api),
      this.#try(this.#api.get('/v1/terminals')),
      this.#try(this.#api.get('/v1/sales')),
    ]);
    this.#health = {
      health,
      terminals: terminals?.data,
      nodes: terminals?.nodes,
      at: new Date(present()),
    };
    this.#showHealth();
    if (sales !== undefined) this.#sales = sales.data;
    if (this.#unread && isLive()) await this.#try(this.#scan());
    if (terminals !== undefined) {
      this.#unseen = terminals.unacknowledged.filter(({ late }) => late).map(identityOf);
    }
    this.#drawSoon();
  }

  /** Show what was last read of it; while the page is not live, as of then. */
  #showHealth() {
    if (this.#health === undefined) return;
    const { health, terminals, nodes, at: readAt } = this.#health;
    const asOf = isLive() ? undefined : readAt;
    showHealth(health, this.#metrics, nodes, asOf);
    if (terminals !== undefined) showTerminals(terminals, asOf);
  }

  /** Wait for something that may fail while the listener is away; the page shows that elsewhere. */
  async #try(promise) {
    try {
      return await promise;
    } catch (error) {
      if (error.status === 401) leave(REVOKED);
      return undefined;
    }
  }

  #drawSoon() {
    this.#drawing ??= setTimeout(() => this.#draw(), DRAW_MS);
  }

  #draw() {
    this.#drawing = undefined;
    if (dashboard !== this) return;
    const transactions = this.#book.all();
    showAttention({
      transactions,
      sales: this.#sales ?? [],
      unread: this.#unread || (this.#sales ? '' : 'Reading …'),
      unseen: this.#unseen.map((one) => ({ ...one, ...this.#book.get(keyOf(one)) })),
      canAct: this.#canAct,
      onAsk: (transaction) => askPockyt(this.#api, transaction),
      onDecide: (transaction) => {
        history.pushState(null, '', hrefOf(transaction));
        this.#story.open(transaction, { decides: true });
      },
      hrefOf,
    });
    const rows = this.#search ? matching(this.#book.shown(), this.#search) : this.#book.list();
    offerStores(transactions);
    showList(rows, {
      filter: this.#book.filter,
      hrefOf,
      marksNew: this.#isListRead && !this.#search,
      hasOlder: this.#book.hasOlder,
      isReading: this.#reading !== undefined,
      problem: this.#problem,
      search: this.#search && { text: this.#search, found: this.#found },
    });
    this.#isListRead = rows.length > 0;
  }
}

/** Decode a part of the address; one that was cut off names nothing. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return '';
  }
}

function hrefOf({ merchantNo, transactionNo }) {
  return `#/${encodeURIComponent(merchantNo)}/${encodeURIComponent(transactionNo)}`;
}

function identityOf({ stream, recordedAt, ...told }) {
  const [merchantNo, storeNo] = stream.split('/');
  return { ...told, merchantNo, storeNo, updatedAt: recordedAt, stateVersion: 0 };
}

makeFilters(() => dashboard?.filter());
makeSearch((text) => dashboard?.search(text));
at('older').addEventListener('click', () => dashboard?.older());
addEventListener('hashchange', () => dashboard?.route());
const leave = gate('listener-dashboard-key', enter);
