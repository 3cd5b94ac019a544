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
// Frames read ahead of the program; beyond that, the listener's ledger is the queue.
const AHEAD_MAX = 1000;
const VERSIONS_MAX = 100_000;
const AFTER_MS_MAX = 600_000;
const GRACE_MS = 10_000;
// The longest page of events or transactions is far below this.
const PAGE_BYTES_MAX = 32 * 1024 * 1024;
const PROBLEM_BYTES_MAX = 64 * 1024;
// With more at a time, most would be refused and requested again.
const SNAPSHOTS_AT_ONCE = 4;
const SHOWN_CHARS_MAX = 80;
const LONGER_MS = 1000;
// So far ahead of the steady clock, which stands still meanwhile, is that of the day after the machine slept.
const ASLEEP_MS = 10_000;
// What one connect may name.
const STREAMS_MAX = 512;
// An empty page that comes sooner is followed by the next question only then.
const EMPTY_MS_MIN = 1000;
// Of more streams than this none is waited for: each is asked in its turn, and together so often a second. A
// connection waits for each stream, a browser has six, and acks need one.
const WAITING_MAX = 4;
const ASKED_MAX = 50;
// How long each step of a handshake may take while long-poll works and does not read meanwhile.
const AGAIN_MS = 2000;
const DOUBLINGS_MAX = 16;

const DONE = 1000;
const CUT = 1006;
const NO_CODE = 1005;
const SERVER_ERROR = 1011;
const OVERLOADED = 1013;
const BAD_KEY = 4001;
const MALFORMED = 4002;
const STREAM_NOT_ALLOWED = 4004;
const LATE_CONNECT = 4103;
const COME_BACK = 4200;
const DEAD = 4201;

const TIMING = {
  connectMs: 10_000, // for each step: the upgrade, then hello, then ready
  slowMs: 800, // how long a try may last before the status says that nothing answers
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

// Why a till is not live after a resync, before anything has failed.
const UNREAD = {
  cause: 'starting',
  why: 'the position was lost, and the snapshot is not read yet',
};

// Why a till is not live before it has connected anew.
const OFFLINE = { cause: 'unreachable', why: 'this device is offline' };
const SLEPT = { cause: 'silent', why: 'this machine slept, or its clock was set' };

// The beginning of the type of each of the listener's problems: only such a problem may stop a client.
const PROBLEM_TYPES = 'urn:pockyt-listener:problem:';
// If it is closed like this before `ready`, WebSocket may be blocked; other codes are the listener's.
const LOST_ON_THE_WAY = [NO_CODE, CUT, LATE_CONNECT];

// Why a connection was closed, and what a person must do: one entry for each row of docs/protocol.md.
const CODES = {
  1000: ['the side that closed is done'],
  1001: ['the other side goes away'],
  1005: ['closed without a code'],
  1006: ['the connection was cut'],
  1009: ['a frame was too big', 'name fewer streams'],
  1011: ['the listener failed'],
  1012: ['the listener restarts'],
  1013: ['the listener has too much to do'],
  4001: ['the key is not known', 'set one that `listener keys create` made'],
  4002: ['a frame was malformed', 'update this client or the listener'],
  4003: ['no key reached the listener', 'set one that `listener keys create` made'],
  4004: ['the key may not follow this stream', 'name one of its scope'],
  4009: ["another program uses this terminal's key", 'stop it, or make a key'],
  4010: ['the key was revoked', 'ask for a new one'],
  4101: ['too many frames in a short time'],
  4102: ['too many connections'],
  4103: ['no connect frame came in time'],
  4108: ['the client took nothing for too long'],
  4200: ['come back now'],
  4201: ['nothing was heard for too long'],
};

/** The listener said not to come back unchanged; `code` says why, the message what to do. */
export class StoppedError extends Error {
  constructor(code, detail) {
    const [meaning, toDo] = CODES[code] ?? [];
    const known = toDo && `${meaning}; ${toDo}`;
    super(`the listener refused (${code}): ${known || detail || "ask the listener's operator"}`);
    this.name = 'StoppedError';
    this.code = code;
  }
}

/** Events are missing on this connection: reconnect from our own position. */
class BrokenError extends Error {}

/** A frame or an answer cannot be read. */
class UnreadableError extends Error {}

/** The listener did not answer as expected; `ended` says what follows. */
class ApiError extends Error {
  constructor(ended) {
    super(ended.why);
    this.ended = ended;
  }
}

/** Holds positions for as long as the program runs. */
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

/**
 * Stores positions in the browser's localStorage, or another storage that is given, under one name. One that is
 * full, damaged or forbidden does not stop a till: positions then stay in memory, and after a restart the
 * listener repeats what was not acknowledged.
 */
export class StoragePositions {
  #given;
  #name;
  #positions;

  constructor(storage = null, name = 'pockyt-pos-positions') {
    this.#given = storage;
    this.#name = name;
  }

  // Where a browser forbids it, even to name it throws.
  get #storage() {
    return this.#given ?? globalThis.localStorage;
  }

  async load() {
    this.#positions ??= this.#read();
    return { ...this.#positions };
  }

  async save(stream, position) {
    this.#positions = { ...(this.#positions ?? this.#read()), [stream]: position };
    try {
      this.#storage.setItem(this.#name, JSON.stringify(this.#positions));
    } catch {
      // Full, or forbidden: it is tried again with the next position.
    }
  }

  #read() {
    try {
      const kept = Object.entries(JSON.parse(this.#storage.getItem(this.#name) ?? '{}'));
      return Object.fromEntries(kept.filter(([, position]) => isPosition(position)));
    } catch {
      return {};
    }
  }
}

function isPosition(value) {
  return typeof value?.epoch === 'string' && value.epoch !== '' && isOffset(value.offset);
}

/** Return a key without surrounding blanks and line breaks, or throw; the key is not quoted. */
function readKey(text) {
  if (typeof text !== 'string') throw new TypeError('a key is needed');
  const key = text.replace(/^[\s\u200b-\u200d\u2060\ufeff]+|[\s\u200b-\u200d\u2060\ufeff]+$/g, '');
  if (key === '') throw new TypeError('the key is empty');
  if (!/^[!-~]+$/.test(key)) {
    throw new TypeError('inside the key is a blank or a letter that no key has; copy it anew');
  }
  return key;
}

/** What a client does after a close code: 'stop', 'backOff', 'backOffLonger', 'restart' or 'atOnce'. */
export function dutyOf(code) {
  if (code === 1009) return 'stop';
  if (code === 1012) return 'restart';
  return { 40: 'stop', 41: 'backOffLonger', 42: 'atOnce' }[Math.floor(code / 100)] ?? 'backOff';
}

/** What follows from an HTTP answer: only the listener's own problem may stop us. */
function endedByAnswer(status, outage, problem) {
  if (problem === undefined || problem.retry) {
    return { duty: 'backOff', code: status === 503 ? OVERLOADED : SERVER_ERROR, ...outage };
  }
  const code = { 401: BAD_KEY, 403: STREAM_NOT_ALLOWED }[status] ?? MALFORMED;
  return { duty: 'stop', code, streams: problem.streams, ...outage };
}

function backOff(cause, why) {
  return { duty: 'backOff', code: CUT, cause, why };
}

function isProblem(headers) {
  const type = headers?.get?.('Content-Type') ?? '';
  return type.split(';')[0].trim().toLowerCase() === 'application/problem+json';
}

/** Read a problem of the listener's; undefined for anybody else's answer. */
function readProblem(text) {
  let members;
  try {
    members = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof members?.type !== 'string' || !members.type.startsWith(PROBLEM_TYPES)) {
    return undefined;
  }
  const code = members.code ?? members.type.slice(PROBLEM_TYPES.length);
  // Those of the key, where the request had to name one.
  const streams = Array.isArray(members.streams) ? members.streams.map(String) : [];
  const { detail, retry } = members;
  return { code: String(code), detail: shown(detail, 300), retry: retry !== false, streams };
}

/** Shorten a stranger's text to one line that a page or a log may show. */
function shown(value, limit = SHOWN_CHARS_MAX) {
  const text = typeof value === 'string' ? value : '';
  return text
    .slice(0, limit)
    .replace(/[\p{C}\p{Zl}\p{Zp}]/gu, ' ')
    .trim();
}

/** Return who answered what over HTTP, where events were expected. */
function outageOfAnswer({ status, headers, type }, host, problem) {
  if (status === 426) {
    const why = `the upgrade to WebSocket did not get through to ${host}: a proxy takes it out`;
    return { cause: 'not_websocket', why };
  }
  if (problem !== undefined) {
    return {
      cause: 'refused',
      why: `the listener answers ${status}: ${problem.detail || problem.code}`,
    };
  }
  if (type === 'opaqueredirect' || (status >= 300 && status < 400)) {
    const led = shown(hostOf(headers?.get?.('Location'))) || 'another page';
    return { cause: 'refused', why: `${host} leads to ${led}: not the listener` };
  }
  const told = ['Content-Type', 'Server'].map((name) => shown(headers?.get?.(name)?.split(';')[0]));
  const who = told.filter(Boolean).join(', ');
  const by = who && ` (${who})`;
  if (status < 300) {
    const why = `${host} answers ${status} with something else than the listener's answer${by}`;
    return { cause: 'not_websocket', why };
  }
  return { cause: 'refused', why: `${host} answers ${status}, not by the listener${by}` };
}

function hostOf(location) {
  try {
    return new URL(location).host;
  } catch {
    return '';
  }
}

const NOT_TRUSTED = /CERT|SELF_SIGNED|UNABLE_TO_|SSL|TLS|EPROTO/;
const NO_NAME = /ENOTFOUND|EAI_/;
const NO_ANSWER = /TIMEOUT|ETIMEDOUT/;
const NOT_HTTP = /^HPE_|PARSE|ZLIB|Z_/;

/** Return why there was no answer at all. */
function outageOfError(error, host) {
  const cause = error?.cause?.errors?.[0] ?? error?.cause ?? error;
  const code = shown(String(cause?.code ?? ''));
  if (error?.name === 'AbortError' || error?.name === 'TimeoutError' || NO_ANSWER.test(code)) {
    return { cause: 'silent', why: `${host} does not answer` };
  }
  if (error instanceof UnreadableError || NOT_HTTP.test(code)) {
    return { cause: 'not_websocket', why: `what answers at ${host} is not the listener` };
  }
  if (NO_NAME.test(code)) return { cause: 'unreachable', why: `the name ${host} is not found` };
  if (NOT_TRUSTED.test(code)) return { cause: 'tls', why: `no trusted TLS with ${host} (${code})` };
  // A browser says no more: no such name, nobody there, no trusted certificate, or another origin.
  return { cause: 'unreachable', why: `${host} cannot be reached${code && ` (${code})`}` };
}

/** Read a body up to a number of bytes, after decompression. */
async function readText(answer, limit) {
  const reader = answer.body?.getReader?.();
  if (reader === undefined) return answer.text();
  const decoder = new TextDecoder();
  let text = '';
  for (let bytes = 0; ;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    bytes += value.byteLength;
    if (bytes > limit) {
      await reader.cancel();
      throw new UnreadableError('this is too long for a page of the listener');
    }
    text += decoder.decode(value, { stream: true });
  }
}

/** Milliseconds of a clock that nobody sets: that of the day may go back by hours. */
function now() {
  return performance.now();
}

/** When to reconnect: full jitter, growing while nothing succeeds, for ever. */
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

/**
 * The newest state version of each transaction that was shown. It counts in its ledger only: in another, a
 * transaction may be one of another stream, whose own resync has not come yet.
 */
class Versions {
  #held = new Map();

  isNew(data, stream, epoch) {
    const key = `${data.merchantNo}/${data.transactionNo}`;
    const held = this.#held.get(key);
    if (held?.epoch === epoch && data.stateVersion <= held.version) return false;
    // Removed first, so that the map is in the order of the last use.
    this.#held.delete(key);
    this.#held.set(key, { version: data.stateVersion, stream, epoch });
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
  /** Those whose position the listener does not resume, until their resync comes. */
  lost = new Set();
  // Where the snapshots lead to that the program has not read to their end.
  #unread = new Map();
  #heads = {};
  #wanted;
  #named = [];
  #new = new Set();

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

  /** Whether all streams of the key are followed: stores come and go meanwhile. */
  get followsAll() {
    return this.#wanted === undefined;
  }

  /** Follow the streams that the listener has named: those of the key. */
  name(streams) {
    if (this.#named.length > 0) {
      for (const stream of streams) if (!this.#named.includes(stream)) this.#new.add(stream);
    }
    this.#narrow(streams);
  }

  /** Follow just these of the key's streams: nothing more comes of a store that is gone. */
  #narrow(streams) {
    this.#named = [...streams];
    const isGone = (stream) => !streams.includes(stream);
    for (const stream of [...this.lost].filter(isGone)) this.lost.delete(stream);
    for (const stream of [...this.#unread.keys()].filter(isGone)) {
      // Should it come back, what its snapshot would have shown is still to be shown.
      this.#unread.delete(stream);
      this.received.delete(stream);
      if (this.handled.has(stream)) this.received.set(stream, this.handled.get(stream));
    }
  }

  /** Conclude that the others go on, where one of all of a key's streams is refused. */
  withoutLostStore(ended) {
    const isLost = ended.code === STREAM_NOT_ALLOWED && this.followsAll && this.names.length > 1;
    return isLost ? { ...ended, duty: 'backOff' } : ended;
  }

  /** Where a stream goes on, or begins. */
  after(stream) {
    return this.received.get(stream) ?? (this.#new.has(stream) ? 'earliest' : 'acked');
  }

  starts() {
    if (this.names.length === 0) return undefined;
    // Of more streams than may be named, the others go on after their last ack.
    const names = this.followsAll ? this.names.slice(0, STREAMS_MAX) : this.names;
    return names.map((stream) => ({ stream, after: this.after(stream) }));
  }

  ready(streams) {
    const named = streams.map(({ stream }) => stream);
    if (this.followsAll) this.#narrow(named);
    else this.#named = named;
    const lost = streams.filter(({ recovered }) => !recovered);
    this.lost = new Set(lost.map(({ stream }) => stream));
    for (const { stream, epoch, head, after, recovered } of streams) {
      if (!recovered) continue; // Its resync says where events go on.
      const ours = this.received.get(stream);
      if (ours === undefined) this.begin(stream, { epoch, offset: after });
      else if (ours.epoch !== epoch || after > ours.offset) {
        throw new BrokenError(`${stream} begins past what we have`);
      } else if (ours.offset > Math.max(head, after)) {
        // The listener does not know of it, as after a crash that took its last commits. What comes next would
        // be taken for old; asked for by name, the stream gets a resync.
        throw new BrokenError(`${stream} ends before what we have`);
      }
    }
  }

  begin(stream, position) {
    this.received.set(stream, position);
    // It was of the position before, which may be of another ledger.
    delete this.#heads[stream];
    if (!this.#named.includes(stream)) this.#named.push(stream);
  }

  /** Forget a stream's position; return the one that its snapshot leads to. */
  resync({ stream, epoch, head }) {
    const position = { epoch, offset: head };
    this.begin(stream, position);
    this.lost.delete(stream);
    this.#unread.set(stream, position);
    return position;
  }

  /** Note that the snapshot that leads to a position is read, if it is the stream's newest. */
  found(stream, position) {
    if (this.#unread.get(stream) === position) this.#unread.delete(stream);
  }

  /** Whether a snapshot of a stream is to be read. */
  isUnread(stream) {
    return this.#unread.has(stream);
  }

  /** Whether no snapshot is missing from what the program has. */
  get isComplete() {
    return this.lost.size === 0 && this.#unread.size === 0;
  }

  /** Accept the next event of a stream; undefined for one that came before. */
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

  /**
   * Return the offset to acknowledge: handled, and in the present ledger. None from the moment at which the
   * position is lost until the snapshot was read: what was handled before is of the old ledger, and what is
   * handled meanwhile is not all there is.
   */
  ackable(stream) {
    if (this.lost.has(stream) || this.#unread.has(stream)) return undefined;
    // Of a store that is gone the listener takes no ack.
    if (!this.names.includes(stream)) return undefined;
    const handled = this.handled.get(stream);
    const received = this.received.get(stream);
    const isOfUse = handled?.epoch === received?.epoch && handled?.offset <= received?.offset;
    return isOfUse && handled.offset > 0 ? handled : undefined;
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

/** Read a frame of the listener; undefined for an unknown type. */
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
    throw new TypeError(
      "the listener's url must have no query and no password: the key is given separately",
    );
  }
  const path = given.pathname.endsWith(STREAM_PATH)
    ? given.pathname.slice(0, -STREAM_PATH.length)
    : given.pathname;
  return `${scheme}//${given.host}${path.replace(/\/+$/, '')}`;
}

/** The listener's HTTP routes: snapshots, long-poll and acks. Every call throws ApiError on failure. */
class Api {
  #base;
  #key;
  #fetch;
  #snapshots = 0;
  #waiting = [];

  constructor(base, key, fetch) {
    this.#base = base;
    this.#key = key;
    this.#fetch = fetch;
    this.host = new URL(base).host;
  }

  get streamUrl() {
    return this.#base.replace(/^http/, 'ws') + STREAM_PATH;
  }

  async page(stream, after, waitSeconds, signal) {
    const query = new URLSearchParams({ wait: String(waitSeconds) });
    if (stream !== undefined) query.set('stream', stream);
    if (typeof after === 'string') query.set('after', after);
    else if (after !== undefined) query.set('after', `${after.epoch}:${after.offset}`);
    const ms = waitSeconds * 1000 + GRACE_MS;
    const answer = await this.#call(`${EVENTS_PATH}?${query}`, { ms, wanted: [200, 410], signal });
    return this.#parsed(answer, (page) => {
      if (page?.reason != null) {
        checkStream(page);
        check(typeof page.snapshot === 'string', 'resync');
      } else {
        const isPage = typeof page?.epoch === 'string' && isOffset(page.next);
        check(isPage && Array.isArray(page.events), 'page');
        page.events.forEach(checkEvent);
      }
    });
  }

  async ack(stream, { epoch, offset }) {
    const body = JSON.stringify({ stream, epoch, offset });
    // A captive portal answers 200 to anything; only 204 means that the ack was stored.
    await this.#call(ACKS_PATH, { method: 'POST', body, wanted: [204] });
  }

  async snapshot(resync, cursor, signal) {
    if (!/^\/(?!\/)/.test(resync.snapshot)) {
      // The key must not be sent to another host.
      throw new ApiError(backOff('refused', 'the snapshot is not a path of the listener'));
    }
    const url = new URL(this.#base + resync.snapshot);
    if (cursor) url.searchParams.set('cursor', cursor);
    const path = url.href.slice(this.#base.length);
    const answer = await this.#inTurn(signal, () => this.#call(path, { signal }));
    const isRow = (row) => typeof row?.transactionNo === 'string' && isOffset(row.stateVersion);
    const page = this.#parsed(answer, ({ data }) => {
      check(Array.isArray(data) && data.every(isRow), 'snapshot');
    });
    return {
      events: page.data.map((row) => snapshotEvent(row, resync.epoch)),
      cursor: page.nextCursor,
    };
  }

  /** Read a snapshot once few others are read. */
  async #inTurn(signal, read) {
    while (this.#snapshots >= SNAPSHOTS_AT_ONCE) {
      await new Promise((resolve) => {
        this.#waiting.push(resolve);
      });
    }
    this.#snapshots += 1;
    try {
      if (signal.aborted) throw new ApiError(backOff('closed', 'it was stopped while it waited'));
      return await read();
    } finally {
      this.#snapshots -= 1;
      this.#waiting.shift()?.();
    }
  }

  /**
   * Ask over HTTP, without a key, why no WebSocket opens: a browser does not say. Resolves to what
   * is known after `ms`; the listener answers 426 here.
   */
  async diagnose(ms) {
    try {
      await this.#call(STREAM_PATH, { ms, wanted: [], key: false });
    } catch (error) {
      if (error instanceof ApiError) return error.ended;
      throw error;
    }
    return undefined;
  }

  /** Parse an answer; one that `examine` does not accept is not the listener's. */
  #parsed({ answer, text }, examine) {
    try {
      const value = JSON.parse(text);
      examine(value);
      return value;
    } catch {
      throw new ApiError({ duty: 'backOff', code: CUT, ...outageOfAnswer(answer, this.host) });
    }
  }

  /**
   * @param {string} path
   * @param {{ method?: string, body?: string, ms?: number, wanted?: number[], signal?: AbortSignal,
   *   key?: boolean }} [options]
   */
  async #call(path, options = {}) {
    const { method = 'GET', body, ms = GRACE_MS, wanted = [200], signal, key = true } = options;
    /** @type {Record<string, string>} */
    const headers = {};
    if (key) {
      headers.Authorization = `Bearer ${this.#key}`;
      // Wins, where a proxy in front puts a token of its own into Authorization.
      headers['X-Listener-Key'] = this.#key;
    }
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const timeout = new AbortController();
    const abort = () => timeout.abort();
    const timer = setTimeout(abort, ms);
    signal?.addEventListener('abort', abort);
    try {
      const answer = await this.#fetch(this.#base + path, {
        method,
        body,
        headers,
        signal: timeout.signal,
        cache: 'no-store',
        redirect: 'manual',
      });
      if (!wanted.includes(answer.status)) throw await this.#refusal(answer);
      return { answer, text: await readText(answer, PAGE_BYTES_MAX) };
    } catch (error) {
      if (error instanceof ApiError) throw error;
      throw new ApiError({ duty: 'backOff', code: CUT, ...outageOfError(error, this.host) });
    } finally {
      // Stops loading a body that will not be read.
      abort();
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  async #refusal(answer) {
    const isOurs = isProblem(answer.headers);
    const problem = isOurs ? readProblem(await readText(answer, PROBLEM_BYTES_MAX)) : undefined;
    const outage = outageOfAnswer(answer, this.host, problem);
    return new ApiError(endedByAnswer(answer.status, outage, problem));
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

/** Wait for a promise, but no longer than so many milliseconds. */
async function within(ms, promise) {
  let timer;
  const timeout = new Promise((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise, timeout]);
  clearTimeout(timer);
}

/**
 * One snapshot that is being read, by itself: events go on meanwhile. `reached` is where the stream goes on
 * once it is read. `onChange` is called when a page came, and when `outage`, the reason why it is not read,
 * has changed.
 */
class Snapshot {
  outage = UNREAD;
  #resync;
  #api;
  #tracker;
  #schedule;
  #onChange;
  #stopping = new AbortController();
  #rows = [];
  #cursor;
  #isLast = false;
  #failed;
  #reading;

  constructor({ resync, position }, { api, tracker, timing, onChange }) {
    this.position = position;
    this.reached = position;
    this.#resync = resync;
    this.#api = api;
    this.#tracker = tracker;
    this.#schedule = new Schedule(timing);
    this.#onChange = onChange;
  }

  /** Whether its last transaction was returned. */
  get isRead() {
    return this.#isLast && this.#rows.length === 0;
  }

  /**
   * Return the next transaction; undefined after the last one, and while none can be read. Waits for a page
   * until `until`.
   */
  async next(until) {
    while (this.#rows.length === 0 && !this.#isLast) {
      if (this.#failed !== undefined) throw this.#failed;
      this.#reading ??= this.#readPage();
      const leftMs = until - now();
      // A caller that has waited enough waits for no timer either, for each of many streams.
      if (leftMs <= 0) return undefined;
      await within(leftMs, this.#reading);
      if (this.#reading !== undefined || this.#stopping.signal.aborted) return undefined;
    }
    return this.#rows.shift();
  }

  /** Read no further. */
  stop() {
    this.#stopping.abort();
  }

  /** Read one page, however often that has to be tried. */
  async #readPage() {
    let page;
    while (page === undefined && this.#failed === undefined && !this.#stopping.signal.aborted) {
      page = await this.#page();
    }
    if (page !== undefined) {
      this.outage = UNREAD;
      this.#rows = page.events;
      this.#cursor = page.cursor;
      this.#isLast = !page.cursor;
    }
    this.#reading = undefined;
    this.#onChange();
  }

  /** Try once to read a page; where that fails, wait. */
  async #page() {
    const { signal } = this.#stopping;
    try {
      const page = await this.#api.snapshot(this.#resync, this.#cursor, signal);
      this.#schedule.progress();
      return page;
    } catch (error) {
      const ended = error instanceof ApiError && this.#tracker.withoutLostStore(error.ended);
      if (!ended) {
        this.#failed = error;
        // Of a store that is gone, whoever began this reads no further.
      } else if (ended.duty === 'stop' && this.#tracker.isUnread(this.#resync.stream)) {
        this.#failed = new StoppedError(ended.code, ended.why);
        this.outage = { cause: 'stopped', why: this.#failed.message };
      } else if (!signal.aborted) {
        const { cause, why } = ended;
        const told = `the snapshot cannot be read, so something may be missing: ${why}`;
        this.outage = { cause, why: told };
        this.#onChange();
        await pause(this.#schedule.next(ended), signal);
      }
      return undefined;
    }
  }
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

  /** Wake waiting callers, to look again. */
  wake() {
    if (this.#items.length === 0) this.put({});
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
  // Those that are not read yet, by stream; and until when they are waited for, to come before the events.
  #snapshots = new Map();
  #patienceUntil = 0;
  #failed;
  #socket;
  #talk;
  #unacked = new Set();
  #ackTimer;
  #isAcking = false;
  #blocked = 0;
  #isHttpWell = false;
  #connects = 0;
  #state = 'connecting';
  #transport = null;
  #outage = { cause: 'starting', why: 'the first try has only just begun' };
  #ackTries;
  #wordAt;
  #ahead = Date.now() - now();
  #wake = () => {};
  /** @type {(outage: object) => void} */
  #renew = () => {};

  constructor(url, options) {
    const { key, streams, position, acks = true, onStatus, onResync, timing, signal } = options;
    this.#timing = { ...TIMING, ...timing };
    this.#WebSocket = 'WebSocket' in options ? options.WebSocket : globalThis.WebSocket;
    this.#key = readKey(key);
    this.#api = new Api(
      baseOf(url),
      this.#key,
      options.fetch ?? ((address, init) => globalThis.fetch(address, init)),
    );
    this.#tracker = new Tracker(typeof streams === 'string' ? [streams] : (streams ?? undefined));
    this.#store = position ?? new MemoryPositions();
    this.#acks = acks;
    this.#onStatus = onStatus;
    this.#onResync = onResync;
    this.#schedule = new Schedule(this.#timing);
    this.#ackTries = new Schedule(this.#timing);
    if (signal?.aborted) this.close();
    else signal?.addEventListener('abort', () => this.close(), { once: true });
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** Whether this is live, over what, or why not; and the age (ms) of the listener's last word. */
  get status() {
    const ageMs = this.#wordAt === undefined ? null : Math.round(now() - this.#wordAt);
    let [state, transport, outage] = [this.#state, this.#transport, this.#outage];
    if (state === 'live' && !this.#tracker.isComplete) {
      // Events come, but what they are about is not all that the till should show.
      const missing = [...this.#snapshots.values()].map((snapshot) => snapshot.outage);
      outage = missing.find((one) => one !== UNREAD) ?? UNREAD;
      [state, transport] = ['connecting', null];
    }
    if (this.#isClosed) {
      [state, transport] = ['stopped', null];
      if (outage?.cause !== 'stopped') {
        const why = this.#failed ? 'it failed; next() says why' : 'the program closed it';
        outage = { cause: 'stopped', why };
      }
    }
    return {
      state,
      transport,
      ageMs,
      cause: outage?.cause ?? null,
      why: outage?.why ?? '',
    };
  }

  /** The streams that are followed; those of the key's scope are known once it is live. */
  get streams() {
    return [...this.#tracker.names];
  }

  /** Up to where each stream was handled. */
  get positions() {
    return Object.fromEntries(this.#tracker.handled);
  }

  /** Count the previous event as handled, and wait for the next one. */
  async next() {
    if (this.#failed !== undefined) throw this.#failed;
    if (this.#isClosed) return { done: true, value: undefined };
    try {
      return await this.#nextEvent();
    } catch (error) {
      // A `for await` that ends so closes nothing: the status would go on to say that this is live.
      throw this.#fail(error);
    }
  }

  async #nextEvent() {
    await (this.#started ??= this.#start());
    if (this.#pending !== undefined) {
      await this.#handled(this.#pending.stream, this.#pending.position);
      this.#pending = undefined;
    }
    while (!this.#isClosed) {
      const event = (await this.#nextOfSnapshots()) ?? (await this.#nextItem());
      if (event !== undefined) return { done: false, value: event };
    }
    return { done: true, value: undefined };
  }

  /** Stop; the event in hand is not acknowledged. */
  async return() {
    this.close();
    return { done: true, value: undefined };
  }

  /** Send the pending acks, send the close, release everything. */
  close() {
    if (this.#isClosed) return;
    void this.#sendAcks();
    this.#closing.abort();
    clearTimeout(this.#ackTimer);
    for (const snapshot of this.#snapshots.values()) snapshot.stop();
    this.#queue.close();
    this.#wake();
    this.#tell();
  }

  get #isClosed() {
    return this.#closing.signal.aborted;
  }

  async #start() {
    this.#tracker.load((await this.#store.load()) ?? {});
    if (this.#isClosed) return;
    const online = () => this.#wake();
    const offline = () => this.#distrust(OFFLINE);
    globalThis.addEventListener?.('online', online);
    globalThis.addEventListener?.('offline', offline);
    const ticker = setInterval(() => this.#tick(), this.#timing.statusMs);
    void this.#run()
      .catch((error) => this.#queue.put({ error }))
      .finally(() => {
        clearInterval(ticker);
        globalThis.removeEventListener?.('online', online);
        globalThis.removeEventListener?.('offline', offline);
      });
  }

  async #run() {
    while (!this.#isClosed) {
      await this.#queue.drained();
      if (this.#isClosed) return;
      const isBlocked = !this.#WebSocket || this.#blocked >= this.#timing.blockedTries;
      const ended = await (isBlocked
        ? this.#watched(this.#poll(), 'long-poll')
        : this.#watched(this.#converse(), 'websocket'));
      if (isBlocked) {
        // WebSocket is tried again first; if it fails, long-poll is next.
        this.#blocked -= 1;
        this.#isHttpWell = ended === undefined;
      }
      if (ended === undefined || this.#isClosed) continue;
      if (ended.duty === 'stop') {
        const error = new StoppedError(ended.code, ended.why);
        this.#change('stopped', null, { cause: 'stopped', why: error.message });
        throw error;
      }
      this.#change('connecting', null, { cause: ended.cause, why: ended.why });
      await this.#sleep(this.#schedule.next(ended));
    }
  }

  /** Await a try; report that nothing answers if it is not live soon. */
  async #watched(trying, over) {
    const timer = setTimeout(() => {
      const isLive = this.#state === 'live' && this.#transport === over;
      if (isLive || this.#isClosed) return;
      this.#change('connecting', null, { cause: 'silent', why: this.#step });
    }, this.#timing.slowMs);
    try {
      return await trying;
    } finally {
      clearTimeout(timer);
    }
  }

  /** What is being waited for. */
  get #step() {
    if (!this.#talk?.isOpen) return `${this.#api.host} does not answer`;
    if (this.#talk.hello === undefined) return 'the websocket is open, but no hello comes';
    return this.#talk.isReady ? 'nothing comes any more' : 'hello came, but no ready';
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

  #tick() {
    const ahead = Date.now() - now();
    const sleptMs = ahead - this.#ahead;
    this.#ahead = ahead;
    // The line may be gone, and no timer has run meanwhile. A clock that is set costs a new connection.
    if (sleptMs >= ASLEEP_MS) {
      if (this.#wordAt !== undefined) this.#wordAt -= sleptMs;
      this.#distrust(SLEPT);
    }
    this.#tell();
  }

  /** Connect anew: the line is probably gone, and nobody would say so for long. */
  #distrust(outage) {
    if (this.#state === 'live') this.#change('connecting', null, outage);
    this.#renew(outage);
    this.#wake();
  }

  #change(state, transport, outage) {
    const isSame = outage?.cause === this.#outage?.cause && outage?.why === this.#outage?.why;
    if (state === this.#state && transport === this.#transport && isSame) return;
    this.#state = state;
    this.#transport = transport;
    this.#outage = outage;
    if (state === 'live' && this.#acks) {
      // Acks that a cut connection swallowed are sent again: acks are cumulative.
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
      // A program that waits for events must see it; in a timer it would be lost.
      this.#queue.put({ error });
    }
  }

  // ---- The program's side: hand out events, store positions, acknowledge.

  async #nextItem() {
    if (this.#isClosed) return undefined;
    const item = await this.#queue.take();
    if (item === undefined) return undefined;
    if (item.error !== undefined) throw item.error;
    if (item.resync !== undefined) {
      this.#replace(item);
      return undefined;
    }
    if (item.event === undefined) return undefined;
    if (this.#versions.isNew(item.event.data, item.stream, item.position.epoch)) {
      this.#pending = item;
      return item.event;
    }
    await this.#handled(item.stream, item.position);
    return undefined;
  }

  /** Begin to read a snapshot, in place of an older one of the stream. */
  #replace(item) {
    const { stream } = item.resync;
    this.#snapshots.get(stream)?.stop();
    // For a moment in all: if they cannot be read, events must not wait for them.
    if (this.#snapshots.size === 0) this.#patienceUntil = now() + this.#timing.slowMs;
    this.#versions.forget(stream);
    const api = this.#api;
    const tracker = this.#tracker;
    const timing = this.#timing;
    const onChange = () => this.#snapshotChanged();
    // Done before the program is told: if that fails, the snapshot must not be lost.
    this.#snapshots.set(stream, new Snapshot(item, { api, tracker, timing, onChange }));
    this.#onResync?.(item.resync);
  }

  #snapshotChanged() {
    if (this.#isClosed) return;
    this.#queue.wake();
    this.#tell();
  }

  /** Return the next transaction of the snapshots that is news; undefined where none is there. */
  async #nextOfSnapshots() {
    for (const [stream, snapshot] of this.#snapshots) {
      if (!this.#tracker.isUnread(stream)) {
        // The store is gone.
        snapshot.stop();
        this.#snapshots.delete(stream);
        this.#tell();
        continue;
      }
      for (;;) {
        const event = await snapshot.next(this.#patienceUntil);
        if (this.#isClosed) return undefined;
        if (event === undefined) break;
        if (this.#versions.isNew(event.data, stream, snapshot.position.epoch)) return event;
      }
      if (snapshot.isRead) {
        await this.#save(stream, snapshot.reached);
        this.#snapshots.delete(stream);
        this.#tracker.found(stream, snapshot.position);
        this.#tell();
      }
    }
    return undefined;
  }

  /** Count an event as handled. */
  async #handled(stream, position) {
    const snapshot = this.#snapshots.get(stream);
    // Saved once the snapshot is read too: a program that crashes before must read it again.
    if (snapshot === undefined) await this.#save(stream, position);
    else snapshot.reached = position;
  }

  /** Save a position, then queue its ack. */
  async #save(stream, position) {
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
      const failed = await this.#sendAcks();
      // So that a fast program does not send a frame for each event, and one whose acks fail does not
      // send them without a pause.
      let wait = this.#timing.ackMs;
      if (failed === undefined) this.#ackTries.progress();
      else wait = Math.max(wait, this.#ackTries.next(failed));
      await pause(wait, this.#closing.signal);
      this.#isAcking = false;
      if (this.#unacked.size > 0 && this.#state === 'live') this.#ackSoon(0);
    }, ms);
  }

  /** Send the pending acks; resolves to why one must be sent again, undefined if none must. */
  async #sendAcks() {
    // Removed first: what is handled during this wait is added again.
    const streams = [...this.#unacked];
    this.#unacked.clear();
    const send = async (stream) => {
      const position = this.#tracker.ackable(stream);
      // Only admin keys follow '*', and those may not acknowledge.
      if (position === undefined || stream === '*') return undefined;
      const failed = await this.#ack(stream, position);
      if (failed !== undefined) this.#unacked.add(stream);
      return failed;
    };
    const outcomes = await Promise.all(streams.map(send));
    return outcomes.find((failed) => failed !== undefined);
  }

  async #ack(stream, position) {
    if (this.#socket?.readyState === 1) {
      const { epoch, offset } = position;
      this.#socket.send(JSON.stringify({ type: 'ack', stream, epoch, offset }));
      return undefined;
    }
    if (this.#transport !== 'long-poll') return backOff('unreachable', 'there is no link');
    try {
      await this.#api.ack(stream, position);
      return undefined;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // What the listener itself refuses for good is not sent again.
      return error.ended.duty === 'stop' ? undefined : error.ended;
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
    this.#queue.put({ resync, position: this.#tracker.resync(resync) });
  }

  /** Open a WebSocket and read it until it ends; resolves to why. */
  async #converse() {
    const talk = {
      isOpen: false,
      hello: undefined,
      isReady: false,
      afterMs: undefined,
      behindSince: undefined,
    };
    this.#talk = talk;
    let ended = await new Promise((resolve) => this.#listen(talk, resolve));
    this.#talk = undefined;
    this.#socket = undefined;
    if (!talk.isOpen && ended.cause !== 'silent' && !this.#isClosed) {
      ended = (await this.#api.diagnose(this.#timing.slowMs)) ?? ended;
      // The answer to a request without a key is not a verdict on our key.
      ended = { ...ended, duty: 'backOff' };
    }
    if (talk.isReady) {
      this.#blocked = 0;
      this.#isHttpWell = false;
      // A listener that is draining must not be mistaken for one behind a firewall.
    } else if (
      talk.hello === undefined ? ended.code !== OVERLOADED : LOST_ON_THE_WAY.includes(ended.code)
    ) {
      this.#blocked += 1;
    }
    return ended;
  }

  #listen(talk, resolve) {
    const cleanUp = new AbortController();
    const until = { signal: cleanUp.signal };
    let socket;
    let timer;
    const finish = (code, outage, say = DONE) => {
      if (cleanUp.signal.aborted) return;
      cleanUp.abort();
      clearTimeout(timer);
      try {
        socket?.close(say);
      } catch {
        // It was never open.
      }
      const { hello, afterMs } = talk;
      const jitterMs =
        hello && (isOffset(hello.reconnectJitterMs) ? hello.reconnectJitterMs : 5000);
      resolve({ duty: dutyOf(code), code, jitterMs, afterMs, ...outage });
    };
    const closed = (why) => ({ cause: 'closed', why });
    const watch = (ms, then) => {
      clearTimeout(timer);
      timer = setTimeout(then, Math.max(0, ms));
    };
    // Each step of the handshake has its own time: a slow line is not a dead one. While long-poll works
    // nothing is read meanwhile.
    const { connectMs } = this.#timing;
    const stepMs = this.#isHttpWell ? Math.min(connectMs, AGAIN_MS) : connectMs;
    const handshake = () => {
      watch(stepMs, () => finish(CUT, { cause: 'silent', why: this.#step }));
    };
    const patience = () => {
      if (!talk.isReady) return;
      const dead = (talk.hello.deadSeconds > 0 ? talk.hello.deadSeconds : 35) * 1000;
      const behind = (talk.behindSince ?? Infinity) + this.#timing.behindMs - now();
      const why = 'the listener is silent, or behind its own heads';
      watch(Math.min(dead, behind), () => finish(DEAD, { cause: 'silent', why }, DEAD));
    };
    try {
      socket = new this.#WebSocket(this.#api.streamUrl, [PROTOCOL]);
    } catch (error) {
      finish(CUT, { cause: 'unreachable', why: `no WebSocket can be made (${error.name})` });
      return;
    }
    handshake();
    this.#closing.signal.addEventListener('abort', () => finish(DONE), until);
    this.#renew = (outage) => finish(DEAD, outage, DEAD);
    const on = (name, then) => {
      socket.addEventListener(name, (event) => cleanUp.signal.aborted || then(event));
    };
    const { host } = this.#api;
    on('open', () => {
      talk.isOpen = true;
      handshake();
    });
    on('close', ({ code }) => finish(...this.#closedBy(code || CUT, talk, socket)));
    on('error', () => finish(CUT, { cause: 'unreachable', why: `the line to ${host} was cut` }));
    on('message', ({ data }) => {
      if (typeof data !== 'string') return;
      this.#wordAt = now();
      try {
        const isHello = this.#hear(parseFrame(data), talk, socket) === 'hello';
        // A browser reads on by itself, so events that the program cannot hold are left to the listener.
        if (this.#queue.isFull) finish(COME_BACK, closed('the program is slower'));
        else if (isHello) handshake();
        else patience();
      } catch (error) {
        if (error instanceof BrokenError) finish(COME_BACK, closed(error.message));
        else if (error instanceof UnreadableError) {
          finish(SERVER_ERROR, closed(`an unreadable frame came: ${error.message}`), MALFORMED);
        } else {
          finish(DONE);
          this.#queue.put({ error });
        }
      }
    });
  }

  /**
   * Conclude what follows from a close by the other side. Only the listener may stop the client: it said
   * hello, or accepted our subprotocol. Another WebSocket that closes with a code of the same range is not.
   */
  #closedBy(code, talk, socket) {
    const isListener = talk.hello !== undefined || socket.protocol === PROTOCOL;
    if (dutyOf(code) === 'stop' && !isListener) {
      return [CUT, { cause: 'closed', why: `closed by somebody else with code ${code}` }];
    }
    const why = `the connection was closed: ${CODES[code]?.[0] ?? 'code'} (${code})`;
    return [code, { cause: 'closed', why }];
  }

  #connectFrame() {
    const streams = this.#tracker.starts();
    const others = this.#tracker.followsAll || undefined;
    return JSON.stringify({ type: 'connect', id: this.#connects, key: this.#key, streams, others });
  }

  #hear(frame, talk, socket) {
    // Since when the listener's heads have been ahead of what arrived.
    const watchHeads = (since) => {
      talk.behindSince = this.#tracker.isBehind ? (since ?? now()) : undefined;
    };
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
        this.#change('live', 'websocket', undefined);
        break;
      case 'event':
        this.#take(frame);
        watchHeads(undefined);
        break;
      case 'ping':
        this.#tracker.ping(frame.heads ?? {});
        this.#schedule.progress();
        watchHeads(talk.behindSince);
        socket.send(JSON.stringify({ type: 'pong', t: frame.t }));
        break;
      case 'resync':
        this.#resync(frame);
        watchHeads(talk.behindSince);
        break;
      case 'reconnect':
        if (isOffset(frame.afterMs)) talk.afterMs = frame.afterMs;
        break;
    }
    return frame.type;
  }

  /** Read by long-poll until it fails, or until WebSocket is to be tried again (undefined). */
  async #poll() {
    const polls = new Map();
    // Each has a signal of its own: Node.js warns of one that many listen to.
    const stops = new Map();
    let isOver = false;
    const stop = () => {
      isOver = true;
      for (const one of stops.values()) one.abort();
    };
    const ask = (name) => {
      stops.set(name, new AbortController());
      polls.set(name, this.#nextPage(name, stops.get(name).signal));
    };
    this.#closing.signal.addEventListener('abort', stop);
    this.#renew = stop;
    // Then WebSocket is tried again, and the key's streams are asked for.
    const again = setTimeout(stop, this.#timing.websocketAgainMs);
    try {
      const { names, followsAll } = this.#tracker;
      if (followsAll && names.length > 1) await this.#nameAgain();
      while (!isOver) {
        for (const name of this.#tracker.names.length ? this.#tracker.names : [undefined]) {
          if (!polls.has(name)) ask(name);
        }
        const { name, page } = await Promise.race(polls.values());
        polls.delete(name);
        if (page !== undefined) this.#takePage(name, page);
        // The listener may just have come back: only now is it certain that WebSocket is blocked.
        if (this.#WebSocket && !this.#isHttpWell) return undefined;
        await this.#queue.drained();
      }
    } catch (error) {
      if (isOver) return undefined;
      if (error instanceof ApiError) return this.#tracker.withoutLostStore(error.ended);
      if (error instanceof BrokenError) {
        return { duty: 'backOff', code: COME_BACK, cause: 'closed', why: error.message };
      }
      throw error;
    } finally {
      clearTimeout(again);
      stop();
      this.#closing.signal.removeEventListener('abort', stop);
      await Promise.allSettled(polls.values());
    }
    return undefined;
  }

  #nextPage(name, signal) {
    // The first answer comes immediately, so that the connection is known to be live.
    if (this.#transport !== 'long-poll') return this.#page(name, signal, 0, 0);
    const { length } = this.#tracker.names;
    if (length > WAITING_MAX) {
      return this.#page(name, signal, 0, Math.max(EMPTY_MS_MIN, (1000 * length) / ASKED_MAX));
    }
    const { pollSeconds } = this.#timing;
    return this.#page(name, signal, pollSeconds, Math.min(pollSeconds * 1000, EMPTY_MS_MIN));
  }

  /** Ask which streams the key has now: stores may have come or gone since the last time. */
  async #nameAgain() {
    await this.#page(undefined, this.#closing.signal, 0, 0);
  }

  /**
   * Read a page of a stream; without a name, of the key's only one, which is known then. None where that has a
   * position here, or where the key has several: they are asked by name. An empty page is returned after
   * `restMs` at the soonest: a listener that is about to restart lets nobody wait.
   */
  async #page(name, signal, waitSeconds, restMs) {
    const after = name === undefined ? 'acked' : this.#tracker.after(name);
    const began = now();
    try {
      const from = after === 'acked' ? undefined : after;
      const page = await this.#api.page(name, from, waitSeconds, signal);
      const leftMs = restMs - (now() - began);
      if (page.events?.length === 0 && leftMs > 0) await pause(leftMs, signal);
      if (name === undefined && page.stream !== undefined) {
        this.#tracker.name([page.stream]);
        if (this.#tracker.received.has(page.stream)) return { name };
      }
      return { name, page };
    } catch (error) {
      if (name !== undefined || !error.ended?.streams?.length) throw error;
      this.#tracker.name(error.ended.streams);
      return { name };
    }
  }

  #takePage(asked, page) {
    this.#wordAt = now();
    if (page.reason != null) {
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
      this.#tracker.lost.delete(name);
      for (const event of page.events) this.#take(event);
    }
    this.#schedule.progress();
    this.#change('live', 'long-poll', undefined);
  }
}

/** Follow a listener's streams for ever: `for await (const event of follow(url, { key }))`. */
export function follow(url, options) {
  return new Follower(url, options);
}
