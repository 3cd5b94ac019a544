// Node.js: http + better-sqlite3 + ws. BENCH_STORE is `none` (fan-out alone), `each` (a commit a
// request) or `group` (all that came in one turn of the event loop share a commit).
'use strict';
const crypto = require('node:crypto');
const http = require('node:http');
const { WebSocketServer } = require('ws');

const { BENCH_DATABASE, BENCH_PORT, BENCH_STORE, BENCH_TOKEN } = process.env;
const md5 = (text) => crypto.createHash('md5').update(text).digest('hex');
const tokenDigest = md5(BENCH_TOKEN);
const tills = new Set();
let sent = 0;

function openStore() {
  const db = new (require('better-sqlite3'))(BENCH_DATABASE);
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.exec(`CREATE TABLE IF NOT EXISTS notifications (
    id INTEGER PRIMARY KEY, transaction_no TEXT NOT NULL, status TEXT NOT NULL,
    reference TEXT, amount TEXT, currency TEXT, merchant_no TEXT, store_no TEXT, received_at REAL,
    UNIQUE (transaction_no, status))`);
  const insert = db.prepare(`INSERT OR IGNORE INTO notifications
    (transaction_no, status, reference, amount, currency, merchant_no, store_no, received_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, julianday('now'))`);
  const one = ({ form, merchantNo, storeNo }) =>
    insert.run(
      form.transactionNo,
      form.status,
      form.reference,
      form.amount,
      form.currency,
      merchantNo,
      storeNo,
    ).changes === 1;
  return { one, all: db.transaction((batch) => batch.map(one)) };
}

const store = BENCH_STORE === 'none' ? null : openStore();

function publish({ form, merchantNo, storeNo }) {
  if (tills.size === 0) return;
  sent += 1;
  const text = JSON.stringify({
    type: 'event',
    stream: `${merchantNo}/${storeNo}`,
    offset: sent,
    event: {
      specversion: '1.0',
      id: `9f3c5a7be01d4f6ab2c8d9e0f1a2b3c4-${sent}`,
      source: '/listener',
      type: 'transaction.cancelled',
      subject: form.transactionNo,
      time: new Date().toISOString(),
      datacontenttype: 'application/json',
      data: {
        transactionNo: form.transactionNo,
        reference: form.reference,
        merchantNo,
        storeNo,
        terminal: null,
        status: 'cancelled',
        providerStatus: form.status,
        stateVersion: 1,
        amount: form.amount,
        currency: form.currency,
        reason: null,
        evidence: 'signature',
      },
    },
  });
  for (const till of tills) till.send(text);
}

function answer(response, status, text) {
  response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': text.length });
  response.end(text);
}

function finish(notification, isNew) {
  if (isNew) publish(notification);
  answer(notification.response, 200, 'success');
}

let waiting = [];
function commitWaiting() {
  const batch = waiting;
  waiting = [];
  const isNew = store.all(batch);
  batch.forEach((notification, i) => finish(notification, isNew[i]));
}

const record = {
  none: (notification) => finish(notification, true),
  each: (notification) => finish(notification, store.one(notification)),
  group: (notification) => {
    if (waiting.push(notification) === 1) setImmediate(commitWaiting);
  },
}[BENCH_STORE];

function verifies(form) {
  const names = Object.keys(form)
    .filter((name) => name !== 'verifySign')
    .sort();
  return (
    md5([...names.map((name) => `${name}=${form[name]}`), tokenDigest].join('&')) ===
    form.verifySign
  );
}

const server = http.createServer((request, response) => {
  const [, route, merchantNo, storeNo] = request.url.split('/');
  if (route !== 'notify' || request.method !== 'POST') return answer(response, 404, 'no');
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const form = Object.fromEntries(new URLSearchParams(Buffer.concat(chunks).toString()));
    if (!verifies(form)) return answer(response, 401, 'fail');
    record({ form, merchantNo, storeNo, response });
  });
});
server.keepAliveTimeout = 0;
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on('connection', (till) => {
  tills.add(till);
  till.on('close', () => tills.delete(till));
  till.on('error', () => tills.delete(till));
});
server.listen({ port: Number(BENCH_PORT), host: '127.0.0.1', backlog: 1024 });
