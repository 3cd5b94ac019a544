// The fair peer: Node.js `http` + better-sqlite3 with group commit, doing the listener's own work for
// a transaction's first, plain notification and for its repeats. The ledger that it writes is one
// that `listener verify` finds sound. Whatever the bench does not send is refused with 501.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const { WebSocketServer } = require('ws');

const { BENCH_DATABASE, BENCH_PORT, BENCH_SCHEMA, BENCH_TOKEN } = process.env;
const MERCHANTS = new Map([
  [
    process.env.BENCH_MERCHANT_NO,
    { tokens: [BENCH_TOKEN].map(tokenEnd), stores: new Set([process.env.BENCH_STORE_NO]) },
  ],
]);

const BODY_BYTES_MAX = 64 * 1024;
const FIELDS_MAX = 64;
const WAITING_MAX = 4096;
const BATCH_MAX = 512;
// In pages: about so many for a commit, and one for two of its items.
const COMMIT_PAGES = 12;
const CHECKPOINT_AFTER = 1000;
const CHECKPOINT_AT_LATEST = 4000;
const QUIET_MS = 50;
const CONNECTIONS_MAX = 24_576;
const IDLE_MS = 75_000;
const HEAD_MS = 10_000;

const GENESIS = '0'.repeat(64);
const APPLICATION_ID = 0x706f6b74;
const AMOUNT = /^[0-9]{1,12}(\.[0-9]{1,2})?$/;
// The fields of the load; any other might be about a refund, say, which is decided otherwise.
const PLAIN_FIELDS = new Set(
  'amount currency reference settleCurrency status time transactionNo verifySign'.split(' '),
);
const STATUS_OF_WORD = new Map([
  ['init', 'created'],
  ['dealing', 'pending'],
  ['pending', 'pending'],
  ['success', 'paid'],
  ['failed', 'failed'],
  ['fail', 'failed'],
  ['closed', 'cancelled'],
  ['reversed', 'cancelled'],
  ['cancelled', 'cancelled'],
  ['canceled', 'cancelled'],
]);

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

function md5(text) {
  return crypto.createHash('md5').update(text).digest('hex');
}

function sha256(text) {
  return crypto.createHash('sha256').update(text).digest('hex');
}

function tokenEnd(token) {
  return `&${md5(token)}`;
}

// ---- Reading a notification.

function decode(text) {
  if (!text.includes('%') && !text.includes('+')) return text;
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    throw new Refused(400, 'a torn escape');
  }
}

function readForm(body) {
  const parts = body.split('&', FIELDS_MAX + 1);
  if (parts.length > FIELDS_MAX) throw new Refused(400, 'too many fields');
  const fields = new Map();
  for (const part of parts) {
    const at = part.indexOf('=');
    fields.set(decode(part.slice(0, at)), decode(part.slice(at + 1)));
  }
  if (fields.size < parts.length) throw new Refused(400, 'a field is repeated');
  return fields;
}

// Returns the text that was signed; every token is tried, whichever matched before.
function signedText(fields, tokens) {
  const given = Buffer.from(fields.get('verifySign') ?? '');
  const names = [...fields.keys()].sort();
  let joined = '';
  for (const name of names) {
    if (name === 'verifySign') continue;
    joined += joined === '' ? `${name}=${fields.get(name)}` : `&${name}=${fields.get(name)}`;
  }
  let matched = null;
  for (const end of tokens) {
    const right = Buffer.from(md5(joined + end));
    if (given.length === right.length && crypto.timingSafeEqual(given, right)) matched = joined;
  }
  if (matched === null) throw new Refused(401, 'verifySign is missing or wrong');
  return matched;
}

// Returns what an entry keeps of a notification.
function readFact(body, merchantNo, storeNo) {
  const merchant = MERCHANTS.get(merchantNo);
  if (merchant === undefined) throw new Refused(404, 'no such merchant');
  if (!merchant.stores.has(storeNo)) throw new Refused(501, 'another store');
  const fields = readForm(body);
  const signed = signedText(fields, merchant.tokens);
  const kept = {};
  for (const [name, value] of fields) {
    if (!PLAIN_FIELDS.has(name)) throw new Refused(501, 'another field');
    if (value === '' || value.includes('&') || value.includes('\0')) {
      throw new Refused(501, 'no plain value');
    }
    if (name !== 'verifySign') kept[name] = value;
  }
  const status = STATUS_OF_WORD.get((kept.status ?? '').trim().toLowerCase());
  if (status === undefined) throw new Refused(501, 'another status');
  if (!kept.transactionNo || !kept.reference) throw new Refused(501, 'no transaction');
  if (!AMOUNT.test(kept.amount ?? '') || !(Number(kept.amount) > 0)) {
    throw new Refused(501, 'no amount');
  }
  return {
    merchantNo,
    storeNo,
    transactionNo: kept.transactionNo,
    reference: kept.reference,
    word: kept.status,
    status,
    amount: kept.amount,
    currency: kept.currency ?? null,
    settleCurrency: kept.settleCurrency ?? null,
    fingerprint: sha256(`${merchantNo.length}:${merchantNo}${signed}`),
    fields: JSON.stringify(kept),
  };
}

// ---- The ledger.

function openLedger() {
  const db = new (require('better-sqlite3'))(BENCH_DATABASE);
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.pragma('wal_autocheckpoint = 0');
  db.pragma('foreign_keys = ON');
  db.pragma('recursive_triggers = ON');
  db.pragma(`cache_size = -${64 * 1024}`);
  const epoch = crypto.randomBytes(8).toString('hex');
  db.transaction(() => {
    db.exec(fs.readFileSync(BENCH_SCHEMA, 'utf8'));
    db.prepare(
      'INSERT INTO ledger (id, epoch, created_at, hash, secret) VALUES (1, ?, ?, ?, ?)',
    ).run(epoch, Date.now(), GENESIS, crypto.randomBytes(32).toString('hex'));
    db.pragma(`application_id = ${APPLICATION_ID}`);
    db.pragma('user_version = 1');
  })();
  return { db, epoch };
}

const { db, epoch } = openLedger();
const sql = {
  begin: db.prepare('BEGIN IMMEDIATE'),
  commit: db.prepare('COMMIT'),
  rollback: db.prepare('ROLLBACK'),
  head: db.prepare('SELECT seq, hash, number FROM ledger'),
  putHead: db.prepare(
    'UPDATE ledger SET seq = ?, hash = ?, number = ?, repeats = repeats + ?,' +
      ' transactions = transactions + ? WHERE id = 1',
  ),
  state: db
    .prepare('SELECT first_seq FROM transactions WHERE transaction_no = ? AND merchant_no = ?')
    .pluck(),
  known: db
    .prepare(
      'SELECT seq FROM entries WHERE transaction_no = ? AND merchant_no = ? AND fingerprint = ?',
    )
    .pluck(),
  unboundSale: db
    .prepare(
      'SELECT max(seq) FROM sales WHERE merchant_no = ? AND reference = ? AND is_refused = 0' +
        ' AND transaction_no IS NULL',
    )
    .pluck(),
  streamHead: db.prepare('SELECT head FROM streams WHERE stream = ?').pluck(),
  putStream: db.prepare(
    'INSERT INTO streams (stream, head) VALUES (?, ?)' +
      ' ON CONFLICT (stream) DO UPDATE SET head = excluded.head',
  ),
  addEntry: db.prepare(
    'INSERT INTO entries (seq, recorded_at, kind, merchant_no, store_no, transaction_no, reference,' +
      ' provider_status, says, amount, currency, settle_currency, fingerprint, fields, hash)' +
      " VALUES (?, ?, 'notification', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
  ),
  addEvent: db.prepare(
    'INSERT INTO events (number, stream, "offset", seq, cancelled, body) VALUES (?, ?, ?, ?, ?, ?)',
  ),
  addTransaction: db.prepare(
    'INSERT INTO transactions (first_seq, merchant_no, transaction_no, store_no, reference, amount,' +
      ' currency, settle_currency, status, provider_status, evidence, held, state_version,' +
      " created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'signature', 0, 1, ?, ?)",
  ),
  addRepeat: db.prepare(
    'INSERT INTO repeats (seq, count, last_at) VALUES (?, 1, ?) ON CONFLICT (seq) DO UPDATE SET' +
      ' count = count + 1, last_at = excluded.last_at',
  ),
};

function eventBody(fact, seq, time) {
  return JSON.stringify({
    specversion: '1.0',
    id: `${epoch}-${seq}`,
    source: '/listener',
    type: `transaction.${fact.status}`,
    subject: fact.transactionNo,
    time,
    datacontenttype: 'application/json',
    data: {
      transactionNo: fact.transactionNo,
      reference: fact.reference,
      merchantNo: fact.merchantNo,
      storeNo: fact.storeNo,
      terminal: null,
      status: fact.status,
      providerStatus: fact.word,
      stateVersion: 1,
      amount: fact.amount,
      currency: fact.currency,
      reason: 'notification',
      evidence: 'signature',
    },
  });
}

// One commit's view of the ledger: the head, and how far each stream has come.
class Commit {
  constructor() {
    ({ seq: this.seq, hash: this.hash, number: this.number } = sql.head.get());
    this.now = Date.now();
    this.time = new Date(this.now).toISOString();
    this.heads = new Map();
    this.repeats = 0;
    this.begun = 0;
    this.events = [];
  }

  // Returns whether it is new.
  add(fact) {
    const { merchantNo, transactionNo } = fact;
    if (sql.state.get(transactionNo, merchantNo) !== undefined) {
      const original = sql.known.get(transactionNo, merchantNo, fact.fingerprint);
      if (original === undefined) throw new Refused(501, 'no first notification');
      sql.addRepeat.run(original, this.now);
      this.repeats += 1;
      return false;
    }
    if (sql.unboundSale.get(merchantNo, fact.reference) !== null) {
      throw new Refused(501, 'a sale of this reference');
    }
    this.#append(fact);
    return true;
  }

  #append(fact) {
    const { now } = this;
    const seq = (this.seq += 1);
    // An entry's columns in order; the NULLs are: terminal, suspect, as_of, sale_seq.
    const row = JSON.stringify([
      seq,
      now,
      'notification',
      fact.merchantNo,
      fact.storeNo,
      fact.transactionNo,
      fact.reference,
      null,
      fact.word,
      fact.status,
      fact.amount,
      fact.currency,
      fact.settleCurrency,
      null,
      null,
      null,
      fact.fingerprint,
      fact.fields,
    ]);
    this.hash = sha256(this.hash + row);
    sql.addEntry.run(
      seq,
      now,
      fact.merchantNo,
      fact.storeNo,
      fact.transactionNo,
      fact.reference,
      fact.word,
      fact.status,
      fact.amount,
      fact.currency,
      fact.settleCurrency,
      fact.fingerprint,
      fact.fields,
      this.hash,
    );
    this.#tell(fact, seq);
    sql.addTransaction.run(
      seq,
      fact.merchantNo,
      fact.transactionNo,
      fact.storeNo,
      fact.reference,
      fact.amount,
      fact.currency,
      fact.settleCurrency,
      fact.status,
      fact.word,
      now,
      now,
    );
    this.begun += 1;
  }

  #tell(fact, seq) {
    const stream = `${fact.merchantNo}/${fact.storeNo}`;
    let head = this.heads.get(stream);
    if (head === undefined) head = sql.streamHead.get(stream) ?? 0;
    const offset = head + 1;
    this.heads.set(stream, offset);
    const body = eventBody(fact, seq, this.time);
    this.number += 1;
    sql.addEvent.run(this.number, stream, offset, seq, fact.status === 'cancelled' ? 1 : 0, body);
    this.events.push({ stream, offset, body });
  }

  end() {
    for (const [stream, head] of this.heads) sql.putStream.run(stream, head);
    sql.putHead.run(this.seq, this.hash, this.number, this.repeats, this.begun);
  }
}

// ---- Group commit: all that came in one turn of the event loop.

const waiting = [];
let pages = 0;
let quiet = null;

function queue(item) {
  if (waiting.length >= WAITING_MAX) return refuse(item.response, 503, 'too much is waiting');
  if (waiting.push(item) === 1) setImmediate(commitWaiting);
}

function commitWaiting() {
  const batch = waiting.splice(0, BATCH_MAX);
  if (waiting.length > 0) setImmediate(commitWaiting);
  let commit;
  try {
    commit = commitBatch(batch);
  } catch (error) {
    console.error(error);
    for (const { response } of batch) refuse(response, 503, 'the ledger cannot be used now');
    return;
  }
  for (const item of batch) {
    if (item.refused) refuse(item.response, item.refused.status, item.refused.message);
    else acknowledge(item);
  }
  publish(commit.events);
  tidy(batch.length);
}

function commitBatch(batch) {
  sql.begin.run();
  try {
    const commit = new Commit();
    for (const item of batch) {
      try {
        item.isNew = commit.add(item.fact);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        item.refused = error;
      }
    }
    commit.end();
    sql.commit.run();
    return commit;
  } catch (error) {
    if (db.inTransaction) sql.rollback.run();
    throw error;
  }
}

// The log is moved into the file as the listener does it: when it is quiet, or at the latest.
function tidy(count) {
  pages += COMMIT_PAGES + Math.floor(count / 2);
  if (pages >= CHECKPOINT_AT_LATEST) checkpoint();
  else if (pages >= CHECKPOINT_AFTER) {
    if (quiet === null) quiet = setTimeout(checkpoint, QUIET_MS);
    else quiet.refresh();
  }
}

function checkpoint() {
  pages = 0;
  if (quiet !== null) clearTimeout(quiet);
  quiet = null;
  db.pragma('wal_checkpoint(PASSIVE)');
}

// ---- Tills and HTTP.

const tills = new Set();

function publish(events) {
  if (tills.size === 0) return;
  for (const { stream, offset, body } of events) {
    const text = `{"type":"event","stream":"${stream}","offset":${offset},"event":${body}}`;
    for (const till of tills) till.send(text);
  }
}

// As the metrics of the listener: how many, how many of them again, how long it took.
const counted = { acknowledged: 0, repeats: 0, refused: new Map(), seconds: 0 };
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, Infinity];
const took = new Array(BUCKETS.length).fill(0);

const OWN_HEADERS = {
  'Content-Type': 'text/plain; charset=utf-8',
  'Content-Length': 7,
  Server: 'listener',
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-store',
};

function acknowledge({ response, started, isNew }) {
  const seconds = (performance.now() - started) / 1000;
  counted.acknowledged += 1;
  if (!isNew) counted.repeats += 1;
  counted.seconds += seconds;
  took[BUCKETS.findIndex((bound) => seconds <= bound)] += 1;
  response.writeHead(200, OWN_HEADERS);
  response.end('success');
}

function refuse(response, status, text) {
  counted.refused.set(status, (counted.refused.get(status) ?? 0) + 1);
  response.writeHead(status, { ...OWN_HEADERS, 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}

function take(request, response, merchantNo, storeNo, chunks) {
  const body = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
  try {
    const fact = readFact(body.toString(), merchantNo, storeNo);
    queue({ response, fact, started: request.started, isNew: true, refused: null });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    refuse(response, error.status, error.message);
  }
}

function handle(request, response) {
  request.started = performance.now();
  const [, route, merchantNo, storeNo, more] = request.url.split('/');
  if (route !== 'notify' || more !== undefined) return refuse(response, 404, 'no such route');
  if (request.method !== 'POST') return refuse(response, 405, 'a notification is a POST');
  if (request.headers['content-type'] !== 'application/x-www-form-urlencoded') {
    return refuse(response, 501, 'another type');
  }
  const chunks = [];
  let bytes = 0;
  request.on('data', (chunk) => {
    bytes += chunk.length;
    if (bytes <= BODY_BYTES_MAX) chunks.push(chunk);
  });
  request.on('end', () => {
    if (bytes > BODY_BYTES_MAX) refuse(response, 413, 'too large');
    else take(request, response, merchantNo, storeNo, chunks);
  });
}

const server = http.createServer({ headersTimeout: HEAD_MS, keepAliveTimeout: IDLE_MS }, handle);
server.maxConnections = CONNECTIONS_MAX;
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on('connection', (till) => {
  tills.add(till);
  till.on('close', () => tills.delete(till));
  till.on('error', () => tills.delete(till));
});
server.listen({ port: Number(BENCH_PORT), host: '127.0.0.1', backlog: 1024 });
process.on('SIGTERM', () => {
  db.close();
  process.exit(0);
});
