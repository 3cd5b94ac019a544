/**
 * Follow a Pockyt listener from a POS: every event once, in order, acknowledged once handled.
 *
 *     for await (const event of follow('https://pos.example.com', { key })) show(event.data);
 *
 * One module, no dependencies, for browsers and Node 20 or later. It speaks `pos.v1`.
 */

export const PROTOCOL = 'pos.v1';
/** The type of the events that a snapshot brings after a position was lost. */
export const SNAPSHOT = 'transaction.snapshot';

const STREAM_PATH = '/v1/pos/stream';
const EVENTS_PATH = '/v1/pos/events';
const ACKS_PATH = '/v1/pos/acks';
// Read ahead of the program; beyond, the listener's ledger is the queue.
const AHEAD_MAX = 1000;
const VERSIONS_MAX = 100_000;
const AFTER_MS_MAX = 600_000;
const GRACE_MS = 10_000;
const LONGER_MS = 1000;
const DOUBLINGS_MAX = 16;

const DONE = 1000;
const CUT = 1006;
const SERVER_ERROR = 1011;
const BAD_KEY = 4001;
const MALFORMED = 4002;
const STREAM_NOT_ALLOWED = 4004;
const COME_BACK = 4200;
const DEAD = 4201;

const TIMING = {
  connectMs: 10_000, // for the upgrade with hello, then for ready
  retryFirstMs: 500,
  retryMaxMs: 30_000,
  behindMs: 2000, // how long heads may stay ahead while no event comes
  ackMs: 250, // between two acks
  pollSeconds: 25, // how long the listener may keep a long-poll waiting
  blockedTries: 3, // failed upgrades in a row before long-poll is tried
  websocketAgainMs: 300_000, // long-poll before WebSocket is tried again
  statusMs: 1000, // how often onStatus hears the age of the last word
  random: Math.random,
};

const TO_DO = {
  1009: 'a frame was too big; name fewer streams',
  4001: 'the key is not known; set one that `listener keys create` made',
  4002: 'the request was malformed; update this client or the listener',
  4003: 'no key reached the listener; set one that `listener keys create` made',
  4004: 'the key may not follow this stream; name one of its scope',
  4009: "another program uses this terminal's key; stop it, or make a key",
  4010: 'the key was revoked; ask for a new one',
  'stream-missing': 'without WebSocket a key of several stores has to name `streams`',
};

/** The listener said not to come back unchanged; `code` says why, the message what to do. */
export class StoppedError extends Error {
  constructor(code, detail) {
    const toDo = TO_DO[detail] ?? TO_DO[code];
    super(`the listener refused (${code}): ${toDo ?? (detail || "ask the listener's operator")}`);
    this.name = 'StoppedError';
    this.code = code;
  }
}

/** The connection tells less than it should: come back from our own position. */
class BrokenError extends Error {}

/** What came cannot be read. */
class UnreadableError extends Error {}

/** The listener did not answer as asked; `ended` says what follows. */
class ApiError extends Error {
  constructor(ended) {
    super(ended.detail);
    this.ended = ended;
  }
}

/** Keeps positions for as long as the program runs. */
export class MemoryPositions {
  #positions;

  constructor(positions = {}) {
    this.#positions = { ...positions };
  }

  async load() {
    return { ...this.#positions };
  }

  async save(stream, position) {
    this.#positions[stream] = position;
  }
}

/** Keeps positions in localStorage or sessionStorage, under one name. */
export class StoragePositions {
  #storage;
  #name;

  constructor(storage, name = 'pockyt-pos-positions') {
    this.#storage = storage;
    this.#name = name;
  }

  async load() {
    return JSON.parse(this.#storage.getItem(this.#name) ?? '{}');
  }

  async save(stream, position) {
    const positions = await this.load();
    this.#storage.setItem(this.#name, JSON.stringify({ ...positions, [stream]: position }));
  }
}

/** What a client does after a close code: 'stop', 'backOff', 'backOffLonger', 'restart' or 'atOnce'. */
export function dutyOf(code) {
  if (code === 1009) return 'stop';
  if (code === 1012) return 'restart';
  return { 40: 'stop', 41: 'backOffLonger', 42: 'atOnce' }[Math.floor(code / 100)] ?? 'backOff';
}

function endedByStatus(status, text) {
  const code =
    { 400: MALFORMED, 401: BAD_KEY, 403: STREAM_NOT_ALLOWED, 422: MALFORMED }[status] ??
    SERVER_ERROR;
  return { duty: dutyOf(code), code, detail: problemOf(text) ?? `HTTP ${status}` };
}

/** The code of a problem; undefined where a body is none, such as a proxy's page. */
function problemOf(text) {
  try {
    const { code } = JSON.parse(text);
    return typeof code === 'string' ? code : undefined;
  } catch {
    return undefined;
  }
}

/** When to come back: full jitter, growing while nothing is achieved, for ever. */
class Schedule {
  #timing;
  #tries = 0;

  constructor(timing) {
    this.#timing = timing;
  }

  progress() {
    this.#tries = 0;
  }

  next(ended) {
    const tries = this.#tries++;
    if (ended.afterMs !== undefined) return Math.min(ended.afterMs, AFTER_MS_MAX);
    let ms;
    if (ended.duty === 'atOnce' || ended.jitterMs === undefined) ms = this.#backOff(tries);
    else if (tries === 0) ms = this.#timing.random() * ended.jitterMs;
    else ms = this.#backOff(tries - 1);
    return ended.duty === 'backOffLonger' ? Math.max(ms, LONGER_MS) : ms;
  }

  #backOff(doublings) {
    const grown = this.#timing.retryFirstMs * 2 ** Math.min(doublings, DOUBLINGS_MAX);
    return this.#timing.random() * Math.min(this.#timing.retryMaxMs, grown);
  }
}

/** The newest state version of each transaction that was shown. */
class Versions {
  #held = new Map();

  isNew(data, stream) {
    const key = `${data.merchantNo}/${data.transactionNo}`;
    const held = this.#held.get(key);
    if (held !== undefined && data.stateVersion <= held.version) return false;
    // Taken out first, so that the order of the map is that of the last use.
    this.#held.delete(key);
    this.#held.set(key, { version: data.stateVersion, stream });
    if (this.#held.size > VERSIONS_MAX) this.#held.delete(this.#held.keys().next().value);
    return true;
  }

  forget(stream) {
    for (const [key, held] of this.#held) if (held.stream === stream) this.#held.delete(key);
  }
}

/** How far each stream has come: `received` from the wire, `handled` by the program. */
class Tracker {
  received = new Map();
  handled = new Map();
  #heads = {};
  #wanted;
  #named = [];

  constructor(streams) {
    this.#wanted = streams;
  }

  load(positions) {
    for (const stream of this.#wanted ?? Object.keys(positions)) {
      if (positions[stream] === undefined) continue;
      this.received.set(stream, positions[stream]);
      this.handled.set(stream, positions[stream]);
    }
  }

  get names() {
    return this.#wanted ?? this.#named;
  }

  starts() {
    if (this.names.length === 0) return undefined;
    return this.names.map((stream) => ({ stream, after: this.received.get(stream) ?? 'acked' }));
  }

  ready(streams) {
    this.#named = streams.map(({ stream }) => stream);
    for (const { stream, epoch, after, recovered } of streams) {
      if (!recovered) continue; // Its resync says where events go on.
      const ours = this.received.get(stream);
      if (ours === undefined) this.begin(stream, { epoch, offset: after });
      else if (ours.epoch !== epoch || after > ours.offset) {
        throw new BrokenError(`${stream} begins past what we have`);
      }
    }
  }

  begin(stream, position) {
    this.received.set(stream, position);
    if (!this.#named.includes(stream)) this.#named.push(stream);
  }

  /** Take the next event of a stream; undefined for one that we have. */
  take(stream, offset) {
    const ours = this.received.get(stream);
    if (ours === undefined) throw new BrokenError(`${stream} is not followed`);
    if (offset <= ours.offset) return undefined;
    if (offset > ours.offset + 1) throw new BrokenError(`${stream} has a hole`);
    const position = { epoch: ours.epoch, offset };
    this.received.set(stream, position);
    return position;
  }

  ping(heads) {
    this.#heads = heads;
  }

  get isBehind() {
    return Object.entries(this.#heads).some(
      ([stream, head]) => head > (this.received.get(stream)?.offset ?? Infinity),
    );
  }

  /** What can be acknowledged: handled, and of the ledger in use. */
  ackable(stream) {
    const handled = this.handled.get(stream);
    const received = this.received.get(stream);
    return handled?.epoch === received?.epoch && handled?.offset > 0 ? handled : undefined;
  }
}

function isOffset(value) {
  return Number.isSafeInteger(value) && value >= 0;
}

function check(isWell, what) {
  if (!isWell) throw new UnreadableError(`${what} is malformed`);
}

function checkEvent(frame) {
  check(typeof frame?.stream === 'string' && isOffset(frame.offset), 'event');
  const data = frame.event?.data;
  check(typeof data?.transactionNo === 'string' && isOffset(data.stateVersion), 'event');
}

function checkStream(stream) {
  check(typeof stream?.stream === 'string' && typeof stream.epoch === 'string', 'stream');
  check(isOffset(stream.head), 'head');
}

/** Read a frame of the listener; undefined for a type that is not known. */
function parseFrame(text) {
  let frame;
  try {
    frame = JSON.parse(text);
  } catch {
    throw new UnreadableError('a frame is not JSON');
  }
  check(typeof frame?.type === 'string', 'frame');
  switch (frame.type) {
    case 'event':
      checkEvent(frame);
      break;
    case 'ready':
      check(Array.isArray(frame.streams), 'ready');
      for (const stream of frame.streams) {
        checkStream(stream);
        check(isOffset(stream.after), 'ready');
      }
      break;
    case 'resync':
      checkStream(frame);
      check(typeof frame.snapshot === 'string', 'resync');
      break;
  }
  return frame;
}

function baseOf(url) {
  const given = new URL(url, globalThis.location?.href);
  const scheme = { 'ws:': 'http:', 'wss:': 'https:', 'http:': 'http:', 'https:': 'https:' }[
    given.protocol
  ];
  if (scheme === undefined) {
    throw new TypeError("the listener's url begins with http, https, ws or wss");
  }
  if (given.search || given.username || given.password) {
    throw new TypeError("the listener's url holds no query and no password: the key goes beside");
  }
  const path = given.pathname.endsWith(STREAM_PATH)
    ? given.pathname.slice(0, -STREAM_PATH.length)
    : given.pathname;
  return `${scheme}//${given.host}${path.replace(/\/+$/, '')}`;
}

/** The listener's HTTP side: snapshots, long-poll and acks. Every call throws ApiError on failure. */
class Api {
  #base;
  #key;
  #fetch;

  constructor(base, key, fetch) {
    this.#base = base;
    this.#key = key;
    this.#fetch = fetch;
  }

  get streamUrl() {
    return this.#base.replace(/^http/, 'ws') + STREAM_PATH;
  }

  async page(stream, after, waitSeconds, signal) {
    const query = new URLSearchParams({ wait: String(waitSeconds) });
    if (stream !== undefined) query.set('stream', stream);
    if (after !== undefined) query.set('after', `${after.epoch}:${after.offset}`);
    const options = { ms: waitSeconds * 1000 + GRACE_MS, also: 410, signal };
    const page = await this.#call(`${EVENTS_PATH}?${query}`, options);
    try {
      if (page?.reason !== undefined) {
        checkStream(page);
        check(typeof page.snapshot === 'string', 'resync');
      } else {
        check(
          typeof page?.epoch === 'string' && isOffset(page.next) && Array.isArray(page.events),
          'page',
        );
        page.events.forEach(checkEvent);
      }
    } catch (error) {
      throw new ApiError({ duty: 'backOff', code: CUT, detail: error.message });
    }
    return page;
  }

  async ack(stream, { epoch, offset }) {
    const body = JSON.stringify({ stream, epoch, offset });
    await this.#call(ACKS_PATH, { method: 'POST', body });
  }

  async snapshot(resync, cursor, signal) {
    if (!/^\/(?!\/)/.test(resync.snapshot)) {
      // The key is not taken to another host.
      throw new ApiError({ duty: 'backOff', code: CUT, detail: 'the snapshot is not a path' });
    }
    const url = new URL(this.#base + resync.snapshot);
    if (cursor) url.searchParams.set('cursor', cursor);
    const page = await this.#call(url.href.slice(this.#base.length), { signal });
    const isRow = (row) => typeof row?.transactionNo === 'string' && isOffset(row.stateVersion);
    if (!Array.isArray(page?.data) || !page.data.every(isRow)) {
      throw new ApiError({ duty: 'backOff', code: CUT, detail: 'unreadable snapshot' });
    }
    return {
      events: page.data.map((row) => snapshotEvent(row, resync.epoch)),
      cursor: page.nextCursor,
    };
  }

  /**
   * @param {string} path
   * @param {{ method?: string, body?: string, ms?: number, also?: number, signal?: AbortSignal }} [options]
   */
  async #call(path, { method = 'GET', body, ms = GRACE_MS, also = 200, signal } = {}) {
    const headers = { Authorization: `Bearer ${this.#key}` };
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const timeout = new AbortController();
    const abort = () => timeout.abort();
    const timer = setTimeout(abort, ms);
    signal?.addEventListener('abort', abort);
    try {
      const options = {
        method,
        body,
        headers,
        signal: timeout.signal,
        cache: 'no-store',
        redirect: 'error',
      };
      const answer = await this.#fetch(this.#base + path, options);
      const text = await answer.text();
      if (!answer.ok && answer.status !== also) {
        throw new ApiError(endedByStatus(answer.status, text));
      }
      return text ? JSON.parse(text) : undefined;
    } catch (error) {
      if (error instanceof ApiError) throw error;
      throw new ApiError({ duty: 'backOff', code: CUT, detail: `no answer: ${error.name}` });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }
}

function snapshotEvent(row, epoch) {
  return {
    specversion: '1.0',
    id: `${epoch}-snapshot-${row.merchantNo}/${row.transactionNo}-${row.stateVersion}`,
    source: '/listener',
    type: SNAPSHOT,
    subject: row.transactionNo,
    time: row.updatedAt ?? new Date().toISOString(),
    datacontenttype: 'application/json',
    data: { evidence: 'none', reason: 'resync', ...row },
  };
}

/** Wait, but no longer than until the signal aborts. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener('abort', finish);
  });
}

/** Items that wait for the program; `drained` resolves when there is room again. */
class Queue {
  #items = [];
  #takers = [];
  #waiters = [];

  get isFull() {
    return this.#items.length >= AHEAD_MAX;
  }

  put(item) {
    const taker = this.#takers.shift();
    if (taker) taker(item);
    else this.#items.push(item);
  }

  take() {
    if (this.#items.length === 0) return new Promise((resolve) => this.#takers.push(resolve));
    const item = this.#items.shift();
    if (this.#items.length <= AHEAD_MAX / 2) this.#release();
    return Promise.resolve(item);
  }

  drained() {
    return this.isFull ? new Promise((resolve) => this.#waiters.push(resolve)) : Promise.resolve();
  }

  close() {
    for (const taker of this.#takers.splice(0)) taker(undefined);
    this.#items = [];
    this.#release();
  }

  #release() {
    for (const waiter of this.#waiters.splice(0)) waiter();
  }
}

/**
 * Events of a listener's streams, as an async iterator. An event is handled, saved and
 * acknowledged when the next one is asked for; leaving the loop closes the connection.
 */
export class Follower {
  #timing;
  #WebSocket;
  #key;
  #api;
  #tracker;
  #store;
  #acks;
  #onStatus;
  #onResync;
  #schedule;
  #queue = new Queue();
  #versions = new Versions();
  #closing = new AbortController();
  #started;
  #pending;
  #snapshot;
  #failed;
  #socket;
  #unacked = new Set();
  #ackTimer;
  #isAcking = false;
  #blocked = 0;
  #isHttpWell = false;
  #connects = 0;
  #state = 'connecting';
  #transport = null;
  #wordAt;
  #wake = () => {};

  constructor(url, options) {
    const { key, streams, position, acks = true, onStatus, onResync, timing, signal } = options;
    if (typeof key !== 'string' || key === '') throw new TypeError('a key is needed');
    this.#timing = { ...TIMING, ...timing };
    this.#WebSocket = 'WebSocket' in options ? options.WebSocket : globalThis.WebSocket;
    this.#key = key;
    this.#api = new Api(
      baseOf(url),
      key,
      options.fetch ?? ((address, init) => globalThis.fetch(address, init)),
    );
    this.#tracker = new Tracker(typeof streams === 'string' ? [streams] : (streams ?? undefined));
    this.#store = position ?? new MemoryPositions();
    this.#acks = acks;
    this.#onStatus = onStatus;
    this.#onResync = onResync;
    this.#schedule = new Schedule(this.#timing);
    if (signal?.aborted) this.close();
    else signal?.addEventListener('abort', () => this.close(), { once: true });
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** Whether this is live, over what, and how old (ms) the listener's last word is. */
  get status() {
    const ageMs = this.#wordAt === undefined ? null : Math.max(0, Date.now() - this.#wordAt);
    return { state: this.#isClosed ? 'stopped' : this.#state, transport: this.#transport, ageMs };
  }

  /** The streams that are followed; those of the key's scope are known once it is live. */
  get streams() {
    return [...this.#tracker.names];
  }

  /** Up to where each stream was handled. */
  get positions() {
    return Object.fromEntries(this.#tracker.handled);
  }

  /** Take the event handed out before as handled, and wait for the next. */
  async next() {
    if (this.#failed !== undefined) throw this.#failed;
    if (this.#isClosed) return { done: true, value: undefined };
    await (this.#started ??= this.#start());
    if (this.#pending !== undefined) {
      await this.#handled(this.#pending.stream, this.#pending.position);
      this.#pending = undefined;
    }
    while (!this.#isClosed) {
      const event =
        this.#snapshot === undefined ? await this.#nextItem() : await this.#nextOfSnapshot();
      if (event !== undefined) return { done: false, value: event };
    }
    return { done: true, value: undefined };
  }

  /** Stop; the event in hand is not acknowledged. */
  async return() {
    this.close();
    return { done: true, value: undefined };
  }

  /** Send the acks that wait, say good-bye, let go. */
  close() {
    if (this.#isClosed) return;
    void this.#sendAcks();
    this.#closing.abort();
    clearTimeout(this.#ackTimer);
    this.#queue.close();
    this.#wake();
    this.#tell();
  }

  get #isClosed() {
    return this.#closing.signal.aborted;
  }

  async #start() {
    this.#tracker.load(await this.#store.load());
    if (this.#isClosed) return;
    const online = () => this.#wake();
    globalThis.addEventListener?.('online', online);
    const ticker = this.#onStatus && setInterval(() => this.#tell(), this.#timing.statusMs);
    void this.#run()
      .catch((error) => this.#queue.put({ error }))
      .finally(() => {
        clearInterval(ticker);
        globalThis.removeEventListener?.('online', online);
      });
  }

  async #run() {
    while (!this.#isClosed) {
      await this.#queue.drained();
      if (this.#isClosed) return;
      const isBlocked = !this.#WebSocket || this.#blocked >= this.#timing.blockedTries;
      const ended = await (isBlocked ? this.#poll() : this.#converse());
      if (isBlocked) {
        // Now WebSocket has its turn; if it fails again, long-poll is next.
        this.#blocked -= 1;
        this.#isHttpWell = ended === undefined;
      }
      if (ended === undefined || this.#isClosed) continue;
      if (ended.duty === 'stop') {
        this.#change('stopped', null);
        throw new StoppedError(ended.code, ended.detail);
      }
      this.#change('connecting', null);
      await this.#sleep(this.#schedule.next(ended));
    }
  }

  #sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #change(state, transport) {
    if (state === this.#state && transport === this.#transport) return;
    this.#state = state;
    this.#transport = transport;
    if (state === 'live' && this.#acks) {
      // What a cut connection swallowed is acknowledged again: acks are cumulative.
      for (const stream of this.#tracker.handled.keys()) this.#unacked.add(stream);
      this.#ackSoon(0);
    }
    this.#tell();
  }

  #fail(error) {
    this.#failed = error;
    this.close();
    return error;
  }

  #tell() {
    try {
      this.#onStatus?.(this.status);
    } catch (error) {
      // It belongs to whoever waits for events, not into a timer.
      this.#queue.put({ error });
    }
  }

  // ---- The program's side: hand out, remember, acknowledge.

  async #nextItem() {
    const item = await this.#queue.take();
    if (item === undefined) return undefined;
    if (item.error !== undefined) throw this.#fail(item.error);
    if (item.resync !== undefined) {
      this.#versions.forget(item.resync.stream);
      // Before the program is told: where that fails, the snapshot must not be lost.
      this.#snapshot = { ...item, events: [], isRead: false, schedule: new Schedule(this.#timing) };
      this.#onResync?.(item.resync);
      return undefined;
    }
    if (this.#versions.isNew(item.event.data, item.stream)) {
      this.#pending = item;
      return item.event;
    }
    await this.#handled(item.stream, item.position);
    return undefined;
  }

  async #nextOfSnapshot() {
    const snapshot = this.#snapshot;
    while (!this.#isClosed) {
      while (snapshot.events.length > 0) {
        const event = snapshot.events.shift();
        if (this.#versions.isNew(event.data, snapshot.resync.stream)) return event;
      }
      if (snapshot.isRead) break;
      try {
        const page = await this.#api.snapshot(
          snapshot.resync,
          snapshot.cursor,
          this.#closing.signal,
        );
        snapshot.schedule.progress();
        Object.assign(snapshot, { ...page, isRead: !page.cursor });
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (error.ended.duty === 'stop') {
          throw this.#fail(new StoppedError(error.ended.code, error.message));
        }
        await pause(snapshot.schedule.next(error.ended), this.#closing.signal);
      }
    }
    if (this.#isClosed) return undefined;
    await this.#handled(snapshot.resync.stream, snapshot.position);
    this.#snapshot = undefined;
    return undefined;
  }

  async #handled(stream, position) {
    // Saved first: the store is never behind the listener.
    await this.#store.save(stream, position);
    this.#tracker.handled.set(stream, position);
    if (!this.#acks) return;
    this.#unacked.add(stream);
    this.#ackSoon(0);
  }

  #ackSoon(ms) {
    if (this.#ackTimer !== undefined || this.#isAcking || this.#isClosed) return;
    this.#ackTimer = setTimeout(async () => {
      this.#ackTimer = undefined;
      if (this.#unacked.size === 0) return;
      this.#isAcking = true;
      await this.#sendAcks();
      // So that a fast program does not send a frame for each event.
      await pause(this.#timing.ackMs, this.#closing.signal);
      this.#isAcking = false;
      if (this.#unacked.size > 0 && this.#state === 'live') this.#ackSoon(0);
    }, ms);
  }

  async #sendAcks() {
    // Taken out first: what is handled while this waits puts it back.
    const streams = [...this.#unacked];
    this.#unacked.clear();
    const send = async (stream) => {
      const position = this.#tracker.ackable(stream);
      if (position !== undefined && !(await this.#ack(stream, position))) this.#unacked.add(stream);
    };
    await Promise.all(streams.map(send));
  }

  async #ack(stream, position) {
    if (this.#socket?.readyState === 1) {
      this.#socket.send(JSON.stringify({ type: 'ack', stream, offset: position.offset }));
      return true;
    }
    if (this.#transport !== 'long-poll') return false;
    try {
      await this.#api.ack(stream, position);
      return true;
    } catch (error) {
      // What is refused for good is not tried again.
      return error.ended?.duty === 'stop';
    }
  }

  // ---- The listener's side: connect, read, watch.

  #take({ stream, offset, event }) {
    const position = this.#tracker.take(stream, offset);
    if (position === undefined) return;
    this.#schedule.progress();
    this.#queue.put({ stream, position, event });
  }

  #resync(resync) {
    const position = { epoch: resync.epoch, offset: resync.head };
    this.#tracker.begin(resync.stream, position);
    this.#queue.put({ resync, position });
  }

  /** Open a WebSocket and read it until it ends; resolves to why. */
  async #converse() {
    const talk = { hello: undefined, afterMs: undefined, isReady: false, behindSince: undefined };
    const ended = await new Promise((resolve) => this.#listen(talk, resolve));
    this.#socket = undefined;
    if (talk.hello !== undefined) {
      this.#blocked = 0;
      this.#isHttpWell = false;
    } else {
      this.#blocked += 1;
    }
    return ended;
  }

  #listen(talk, resolve) {
    const cleanUp = new AbortController();
    const until = { signal: cleanUp.signal };
    let socket;
    let timer;
    const finish = (code, say = DONE, detail = '') => {
      if (cleanUp.signal.aborted) return;
      cleanUp.abort();
      clearTimeout(timer);
      try {
        socket?.close(say);
      } catch {
        // It was never open.
      }
      const jitterMs = talk.hello && (talk.hello.reconnectJitterMs ?? 5000);
      resolve({ duty: dutyOf(code), code, detail, jitterMs, afterMs: talk.afterMs });
    };
    const watch = (ms, then) => {
      clearTimeout(timer);
      timer = setTimeout(then, Math.max(0, ms));
    };
    const patience = () => {
      if (!talk.isReady) return;
      const dead = (talk.hello.deadSeconds ?? 35) * 1000;
      const behind = (talk.behindSince ?? Infinity) + this.#timing.behindMs - Date.now();
      watch(Math.min(dead, behind), () => finish(DEAD, DEAD, 'silent, or behind its own heads'));
    };
    try {
      socket = new this.#WebSocket(this.#api.streamUrl, [PROTOCOL]);
    } catch (error) {
      finish(CUT, DONE, error.name);
      return;
    }
    watch(this.#timing.connectMs, () => finish(CUT, DONE, 'no hello or no ready in time'));
    this.#closing.signal.addEventListener('abort', () => finish(DONE), until);
    const on = (name, then) => {
      socket.addEventListener(name, (event) => cleanUp.signal.aborted || then(event));
    };
    on('close', ({ code }) => finish(code || CUT));
    on('error', () => finish(CUT));
    on('message', ({ data }) => {
      if (typeof data !== 'string') return;
      this.#wordAt = Date.now();
      try {
        this.#hear(parseFrame(data), talk, socket);
        // A browser reads on by itself: what the program cannot hold stays with the listener.
        if (this.#queue.isFull) finish(COME_BACK, DONE, 'the program is slower');
        else patience();
      } catch (error) {
        if (error instanceof BrokenError) finish(COME_BACK, DONE, error.message);
        else if (error instanceof UnreadableError) finish(SERVER_ERROR, MALFORMED, error.message);
        else {
          finish(DONE);
          this.#queue.put({ error });
        }
      }
    });
  }

  #connectFrame() {
    const streams = this.#tracker.starts();
    return JSON.stringify({ type: 'connect', id: this.#connects, key: this.#key, streams });
  }

  #hear(frame, talk, socket) {
    switch (frame.type) {
      case 'hello':
        talk.hello = frame;
        this.#connects += 1;
        socket.send(this.#connectFrame());
        break;
      case 'ready':
        if (talk.hello === undefined) throw new UnreadableError('ready before hello');
        this.#tracker.ready(frame.streams);
        talk.isReady = true;
        this.#socket = socket;
        this.#change('live', 'websocket');
        break;
      case 'event':
        this.#take(frame);
        talk.behindSince = this.#tracker.isBehind ? Date.now() : undefined;
        break;
      case 'ping':
        this.#tracker.ping(frame.heads ?? {});
        this.#schedule.progress();
        talk.behindSince = this.#tracker.isBehind ? (talk.behindSince ?? Date.now()) : undefined;
        socket.send(JSON.stringify({ type: 'pong', t: frame.t }));
        break;
      case 'resync':
        this.#resync(frame);
        break;
      case 'reconnect':
        if (isOffset(frame.afterMs)) talk.afterMs = frame.afterMs;
        break;
    }
  }

  /** Read by long-poll until it fails, or until WebSocket is to be tried again (undefined). */
  async #poll() {
    const until = this.#WebSocket ? Date.now() + this.#timing.websocketAgainMs : Infinity;
    const polls = new Map();
    const stop = new AbortController();
    const abort = () => stop.abort();
    this.#closing.signal.addEventListener('abort', abort);
    const again = this.#WebSocket && setTimeout(abort, this.#timing.websocketAgainMs);
    try {
      while (Date.now() < until && !stop.signal.aborted) {
        for (const name of this.#tracker.names.length ? this.#tracker.names : [undefined]) {
          if (!polls.has(name)) polls.set(name, this.#page(name, stop.signal));
        }
        const { name, page } = await Promise.race(polls.values());
        polls.delete(name);
        this.#takePage(name, page);
        // The listener may just have come back: only now is WebSocket known as blocked.
        if (this.#WebSocket && !this.#isHttpWell) return undefined;
        await this.#queue.drained();
      }
    } catch (error) {
      if (stop.signal.aborted) return undefined;
      if (error instanceof ApiError) return error.ended;
      if (error instanceof BrokenError) {
        return { duty: 'backOff', code: COME_BACK, detail: error.message };
      }
      throw error;
    } finally {
      clearTimeout(again);
      stop.abort();
      this.#closing.signal.removeEventListener('abort', abort);
      await Promise.allSettled(polls.values());
    }
    return undefined;
  }

  async #page(name, signal) {
    // The first answer comes at once, so that the link is known to be live.
    const wait = this.#transport === 'long-poll' ? this.#timing.pollSeconds : 0;
    const after = name === undefined ? undefined : this.#tracker.received.get(name);
    return { name, page: await this.#api.page(name, after, wait, signal) };
  }

  #takePage(asked, page) {
    this.#wordAt = Date.now();
    if (page.reason !== undefined) {
      this.#resync(page);
    } else {
      const name = asked ?? page.stream ?? page.events[0]?.stream;
      if (name !== undefined && !this.#tracker.received.has(name)) {
        const offset = page.events.length ? page.events[0].offset - 1 : page.next;
        this.#tracker.begin(name, { epoch: page.epoch, offset });
      }
      if (name !== undefined && this.#tracker.received.get(name).epoch !== page.epoch) {
        throw new BrokenError(`${name} is of another epoch`);
      }
      for (const event of page.events) this.#take(event);
    }
    this.#schedule.progress();
    this.#change('live', 'long-poll');
  }
}

/** Follow a listener's streams for ever: `for await (const event of follow(url, { key }))`. */
export function follow(url, options) {
  return new Follower(url, options);
}
