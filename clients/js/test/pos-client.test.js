import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import {
  dutyOf,
  follow,
  Follower,
  MemoryPositions,
  SNAPSHOT,
  StoppedError,
  StoragePositions,
} from '../pos-client.js';
import {
  event as eventOf,
  EPOCH,
  KEY,
  listen,
  page,
  problem,
  STREAM,
  transaction,
  until,
} from '../testing/server.js';

const OTHER = '200043/300014';
const FAST = {
  connectMs: 500,
  retryFirstMs: 10,
  retryMaxMs: 20,
  behindMs: 100,
  ackMs: 10,
  pollSeconds: 1,
  blockedTries: 2,
  websocketAgainMs: 30_000,
  statusMs: 20,
};
const hasWebSocket = globalThis.WebSocket !== undefined;
const web = { skip: hasWebSocket ? false : 'no WebSocket in this Node', timeout: 20_000 };
const any = { timeout: 20_000 };

const open = [];
afterEach(async () => {
  for (const part of open.splice(0).reverse()) await (part.stop?.() ?? part.close());
});

async function serve(...scripts) {
  const server = await listen(...scripts);
  open.push(server);
  return server;
}

function client(server, options = {}) {
  const follower = follow(server.url, { key: KEY, streams: STREAM, timing: FAST, ...options });
  open.push(follower);
  return follower;
}

/** Take events; return their transaction numbers. */
async function take(follower, count) {
  const taken = [];
  while (taken.length < count) taken.push((await follower.next()).value.data.transactionNo);
  return taken;
}

async function stopped(follower) {
  try {
    for await (const _ of follower);
  } catch (error) {
    assert.ok(error instanceof StoppedError, String(error));
    return error;
  }
  throw new Error('it did not stop');
}

const stay = (call) => call.begin();

test('events come in order and each is acked once the next is asked for', web, async () => {
  const server = await serve(async (call) => {
    const connect = await call.begin();
    assert.equal(connect.key, KEY);
    assert.deepEqual(connect.streams, [{ stream: STREAM, after: 'acked' }]);
    call.event(1);
    call.event(2);
    call.send({ type: 'ping', t: 5, heads: { [STREAM]: 2 } });
  });
  const follower = client(server);
  assert.deepEqual(await take(follower, 1), ['t1']);
  await until(() => server.calls[0].received.some(({ type }) => type === 'pong'));
  assert.deepEqual(server.calls[0].acks(), []);
  assert.deepEqual(follower.positions, {});
  assert.deepEqual(follower.streams, [STREAM]);
  assert.deepEqual(await take(follower, 1), ['t2']);
  await until(() => server.calls[0].acks().length > 0);
  assert.deepEqual(server.calls[0].acks(), [1]);
  assert.deepEqual(follower.positions, { [STREAM]: { epoch: EPOCH, offset: 1 } });
  assert.deepEqual(server.faults, []);
});

test('leaving the loop closes the connection', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    call.event(1);
  });
  const follower = client(server);
  for await (const event of follower) {
    assert.equal(event.type, 'transaction.cancelled');
    break;
  }
  assert.equal(await server.calls[0].closed, 1000);
  assert.deepEqual(server.calls[0].acks(), []);
  assert.deepEqual([follower.status.state, follower.status.transport], ['stopped', null]);
  assert.deepEqual(await follower.next(), { done: true, value: undefined });
});

for (const code of [1009, 4001, 4002, 4003, 4004, 4009, 4010, 4055]) {
  test(`it stops for good after ${code} and says what to do`, web, async () => {
    const server = await serve(async (call) => {
      await call.begin();
      call.close(code);
    });
    const states = new Set();
    const error = await stopped(client(server, { onStatus: ({ state }) => states.add(state) }));
    assert.equal(error.code, code);
    assert.ok(error.message.includes(String(code)) && !error.message.includes(KEY));
    assert.equal(server.upgrades, 1);
    // Where connecting takes a moment, that is told as well.
    assert.deepEqual(
      [...states].filter((state) => state !== 'connecting'),
      ['live', 'stopped'],
    );
  });
}

for (const code of [1000, 1001, 1011, 1012, 1013, 3999, 4101, 4200, 4201]) {
  test(`it comes back from its own position after ${code}`, web, async () => {
    const server = await serve(
      async (call) => {
        await call.begin();
        call.event(1);
        call.close(code);
      },
      async (call) => {
        const connect = await call.begin({ after: 1 });
        assert.deepEqual(connect.streams, [{ stream: STREAM, after: { epoch: EPOCH, offset: 1 } }]);
        call.event(2);
      },
    );
    const began = Date.now();
    assert.deepEqual(await take(client(server), 2), ['t1', 't2']);
    assert.equal(Date.now() - began >= 990, Math.floor(code / 100) === 41);
    assert.deepEqual(server.faults, []);
  });
}

test('a cut connection is resumed and its acks are sent again', web, async () => {
  const server = await serve(
    async (call) => {
      await call.begin();
      call.event(1);
      call.event(2);
      await call.expect('ack');
      call.abort();
    },
    async (call) => {
      await call.begin({ after: 2 });
      await call.expect('ack');
      call.event(3);
    },
  );
  assert.deepEqual(await take(client(server), 3), ['t1', 't2', 't3']);
});

test('a restart is waited for as long as was asked', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    call.send({ type: 'reconnect', afterMs: 300 });
    call.close(1012);
  }, stay);
  void client(server).next();
  await until(() => server.upgrades === 1);
  const began = Date.now();
  await until(() => server.upgrades === 2);
  assert.ok(Date.now() - began >= 250);
});

test('a hole makes it come back and nothing is skipped', web, async () => {
  const server = await serve(
    async (call) => {
      await call.begin();
      call.event(1);
      call.event(3);
    },
    async (call) => {
      await call.begin({ after: 1 });
      for (const offset of [1, 2, 3]) call.event(offset);
    },
  );
  assert.deepEqual(await take(client(server), 3), ['t1', 't2', 't3']);
});

test('a silent listener is given up with 4201', web, async () => {
  const server = await serve((call) => call.begin({ deadSeconds: 0.1 }), stay);
  void client(server).next();
  assert.equal(
    await until(() => server.calls.length === 2).then(() => server.calls[0].closed),
    4201,
  );
});

test('heads that stay ahead make it come back', web, async () => {
  const server = await serve(
    async (call) => {
      await call.begin();
      call.send({ type: 'ping', t: 1, heads: { [STREAM]: 2, 'x/y': 9 } });
      call.event(1);
      call.send({ type: 'ping', t: 2, heads: { [STREAM]: 2 } });
    },
    async (call) => {
      await call.begin({ after: 1 });
      call.event(2);
    },
  );
  assert.deepEqual(await take(client(server), 2), ['t1', 't2']);
  assert.equal(await server.calls[0].closed, 4201);
});

test('heads that stay ahead without any event make it come back', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    call.send({ type: 'ping', t: 1, heads: { [STREAM]: 1 } });
  }, stay);
  void client(server).next();
  await until(() => server.calls.length === 2);
  assert.equal(await server.calls[0].closed, 4201);
});

test('a listener that goes on talking is not given up', web, async () => {
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const server = await serve(async (call) => {
    await call.begin({ deadSeconds: 0.15 });
    call.send({ type: 'ping', t: 1, heads: { [STREAM]: 6 } });
    for (let offset = 1; offset <= 6; offset += 1) {
      await pause(FAST.behindMs / 2);
      call.event(offset);
    }
    for (let t = 0; t < 4; t += 1) {
      await pause(80);
      call.send({ type: 'ping', t, heads: { [STREAM]: 6 } });
    }
    call.event(7);
  });
  assert.deepEqual(await take(client(server), 7), ['t1', 't2', 't3', 't4', 't5', 't6', 't7']);
  assert.equal(server.upgrades, 1);
});

test('a listener that never says hello or ready is left', web, async () => {
  const server = await serve(
    async () => {},
    async (call) => call.hello(),
    async (call) => {
      await call.begin();
      call.event(1);
    },
  );
  const follower = client(server, { timing: { ...FAST, blockedTries: 9, connectMs: 100 } });
  assert.equal(follower.status.ageMs, null);
  assert.deepEqual(await take(follower, 1), ['t1']);
  assert.ok(follower.status.ageMs < 5000);
});

for (const text of [
  '{',
  '[]',
  'null',
  '{"type":"ready","streams":5}',
  '{"type":"event","offset":1.5}',
]) {
  test(`the unreadable frame ${text} ends the connection`, web, async () => {
    const server = await serve(
      async (call) => {
        await call.begin();
        call.raw(text);
      },
      async (call) => {
        await call.begin();
        call.event(1);
      },
    );
    assert.deepEqual(await take(client(server), 1), ['t1']);
    assert.equal(await server.calls[0].closed, 4002);
  });
}

test(
  'what it does not know is ignored, and only a higher state version is shown',
  web,
  async () => {
    const server = await serve(async (call) => {
      await call.begin({ colour: 'red' });
      call.send({ type: 'weather' });
      call.send({ type: 'error', code: 'x', message: 'y' });
      call.event(1, { no: 't', version: 2 });
      call.event(2, { no: 't', version: 2 });
      call.event(3, { no: 't', version: 1 });
      call.event(4, { no: 't', version: 3 });
    });
    const follower = client(server);
    const versions = [];
    while (versions.length < 2) versions.push((await follower.next()).value.data.stateVersion);
    assert.deepEqual(versions, [2, 3]);
    await until(() => server.calls[0].acks().at(-1) === 3);
  },
);

test('without streams it follows those of the key', web, async () => {
  const streams = [STREAM, OTHER];
  const server = await serve(
    async (call) => {
      const connect = await call.begin({ streams });
      assert.equal(connect.streams, undefined);
      call.event(1);
      call.event(1, { stream: OTHER, no: 'o1' });
      call.close(4200);
    },
    async (call) => {
      const connect = await call.begin({ streams, after: 1 });
      assert.deepEqual(
        connect.streams.map(({ after }) => after.offset),
        [1, 1],
      );
      call.event(2);
    },
  );
  assert.deepEqual(await take(client(server, { streams: undefined }), 3), ['t1', 'o1', 't2']);
  assert.deepEqual(server.faults, []);
});

test(
  'a position that is kept is resumed, also where the listener begins past it',
  web,
  async () => {
    const server = await serve(
      (call) => call.begin({ after: 4 }),
      async (call) => {
        const connect = await call.begin({ after: 3 });
        assert.deepEqual(connect.streams, [{ stream: STREAM, after: { epoch: EPOCH, offset: 3 } }]);
        call.event(4);
        call.event(5);
      },
    );
    const kept = new Map();
    const storage = {
      getItem: (name) => kept.get(name) ?? null,
      setItem: (name, text) => kept.set(name, text),
    };
    const position = new StoragePositions(storage);
    await position.save(STREAM, { epoch: EPOCH, offset: 3 });
    assert.deepEqual(await take(client(server, { streams: undefined, position }), 2), ['t4', 't5']);
    assert.deepEqual(await position.load(), { [STREAM]: { epoch: EPOCH, offset: 4 } });
    assert.deepEqual(server.faults, []);
  },
);

test('a position past the head is asked for by name and gets a resync', web, async () => {
  const snapshot = '/v1/transactions?merchantNo=200043&storeNo=303660';
  const ahead = { stream: STREAM, reason: 'offset_ahead', epoch: EPOCH, head: 10, snapshot };
  const server = await serve(
    async (call) => {
      const connect = await call.begin({ after: 8 });
      assert.equal(connect.streams, undefined);
      call.event(9);
      call.event(10);
    },
    async (call) => {
      call.hello();
      const connect = await call.expect('connect');
      assert.deepEqual(connect.streams, [{ stream: STREAM, after: { epoch: EPOCH, offset: 12 } }]);
      const stream = { stream: STREAM, epoch: EPOCH, head: 10, after: 10, recovered: false };
      call.send({ type: 'ready', id: 2, streams: [stream] });
      call.send({ type: 'resync', ...ahead });
    },
  );
  server.snapshotAnswers = [{ data: rows(10), nextCursor: null }];
  const position = new MemoryPositions({ [STREAM]: { epoch: EPOCH, offset: 12 } });
  const told = [];
  const onResync = ({ reason }) => told.push(reason);
  assert.deepEqual(await take(client(server, { streams: undefined, position, onResync }), 1), [
    't10',
  ]);
  assert.deepEqual(told, ['offset_ahead']);
  assert.deepEqual(server.faults, []);
});

const resync = {
  stream: STREAM,
  reason: 'epoch_changed',
  epoch: 'e2',
  head: 40,
  snapshot: '/v1/transactions?merchantNo=200043&storeNo=303660',
};
const rows = (...numbers) => numbers.map((n) => transaction(n, { version: 5 }));

test('a lost position is replaced by a snapshot', web, async () => {
  const server = await serve(async (call) => {
    call.hello();
    await call.expect('connect');
    const stream = { stream: STREAM, epoch: 'e2', head: 40, after: 40, recovered: false };
    call.send({ type: 'ready', id: 1, streams: [stream] });
    call.send({ type: 'resync', ...resync });
    call.event(41, { no: 't8', version: 5 });
    call.event(42, { no: 't8', version: 6 });
  });
  server.snapshotAnswers = [
    { status: 503 },
    { data: 5 },
    { data: [{}] },
    { data: rows(9, 8), nextCursor: 'c/1' },
    { data: rows(8, 7), nextCursor: null },
  ];
  const told = [];
  const position = new MemoryPositions({ [STREAM]: { epoch: EPOCH, offset: 3 } });
  const follower = client(server, { position, onResync: (what) => told.push(what.reason) });
  const events = [];
  while (events.length < 3) events.push((await follower.next()).value);
  assert.deepEqual(
    events.map(({ type, subject }) => [type, subject]),
    [
      [SNAPSHOT, 't9'],
      [SNAPSHOT, 't8'],
      [SNAPSHOT, 't7'],
    ],
  );
  // Until all of it is handled, the old position is kept: a crash reads it again.
  assert.equal((await position.load())[STREAM].epoch, EPOCH);
  const live = (await follower.next()).value;
  assert.deepEqual([live.type, live.data.stateVersion], ['transaction.cancelled', 6]);
  assert.deepEqual((await position.load())[STREAM], { epoch: 'e2', offset: 41 });
  await until(() => server.calls[0].acks().at(-1) === 41);
  assert.deepEqual(told, ['epoch_changed']);
  assert.equal(server.snapshots.at(-1).cursor, 'c/1');
  assert.equal(server.snapshots.at(-1).storeNo, '303660');
});

test('the key is not taken to another host, and a refused snapshot stops it', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    call.send({ type: 'resync', ...resync, snapshot: '@elsewhere.example/' });
  });
  const fetched = [];
  const fetch = (url) => {
    fetched.push(url);
    return Promise.reject(new TypeError('not to be called'));
  };
  const follower = client(server, { fetch });
  void follower.next();
  await until(() => follower.status.why.includes('is not a path of the listener'));
  follower.close();
  assert.deepEqual(fetched, []);
  const other = await serve(async (call) => {
    await call.begin();
    call.send({ type: 'resync', ...resync });
  });
  other.snapshotAnswers = [{ status: 401 }, problem(401, 'unauthorized')];
  assert.equal((await stopped(client(other))).code, 4001);
});

test('a slow program does not make it hold everything', web, async () => {
  const server = await serve(
    async (call) => {
      await call.begin();
      for (let offset = 1; offset <= 1500; offset += 1) call.event(offset);
    },
    async (call) => {
      call.hello();
      const { streams } = await call.expect('connect');
      const after = streams[0].after.offset;
      call.ready({ after });
      for (let offset = after + 1; offset <= 1500; offset += 1) call.event(offset);
    },
  );
  const follower = client(server);
  await take(follower, 1);
  assert.equal(await server.calls[0].closed, 1000);
  assert.equal(server.upgrades, 1);
  const numbers = await take(follower, 1499);
  assert.deepEqual(
    numbers,
    Array.from({ length: 1499 }, (_, i) => `t${i + 2}`),
  );
  assert.equal(server.upgrades, 2);
});

test('closing while it holds all that it may opens no further connection', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    for (let offset = 1; offset <= 1500; offset += 1) call.event(offset);
  });
  const follower = client(server);
  await take(follower, 1);
  await server.calls[0].closed;
  follower.close();
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(server.upgrades, 1);
});

for (const [name, options] of /** @type {const} */ ([
  ['blocked', web],
  ['missing', any],
])) {
  test(`where WebSocket is ${name} it polls and acks by POST`, options, async () => {
    const server = await serve();
    server.isBlocked = true;
    server.pages = [page(1, 2), page(2, 3)];
    server.ackAnswers = [{ status: 503 }];
    const follower = client(server, name === 'missing' ? { WebSocket: null } : {});
    assert.deepEqual(await take(follower, 3), ['t1', 't2', 't3']);
    await until(() => server.acks.at(-1)?.offset === 2 && server.acks.length >= 2);
    assert.deepEqual(server.acks.at(-1), { stream: STREAM, epoch: EPOCH, offset: 2 });
    assert.deepEqual(server.polls[0], { stream: STREAM, wait: '0' });
    assert.equal(server.polls[1].after, `${EPOCH}:2`);
    assert.equal(follower.status.transport, 'long-poll');
    assert.deepEqual(server.faults, []);
  });
}

test('long-poll without a named stream learns it, and resyncs on 410', any, async () => {
  const server = await serve();
  server.pages = [
    page(4),
    { status: 410, body: { ...resync, type: 'about:blank', epoch: EPOCH } },
    page(41),
  ];
  server.snapshotAnswers = [{ data: rows(7) }];
  const follower = client(server, { WebSocket: null, streams: undefined });
  assert.deepEqual(await take(follower, 3), ['t4', 't7', 't41']);
  assert.equal(server.polls[0].stream, undefined);
  assert.equal(server.polls[1].stream, STREAM);
  assert.equal(server.polls[2].after, `${EPOCH}:40`);
});

test('long-poll without a named stream begins at its own position', any, async () => {
  const server = await serve();
  // Another till with the same key is further, and so is what the key has acknowledged.
  server.pages = [page(10), page(6, 7)];
  const position = new MemoryPositions({ [STREAM]: { epoch: EPOCH, offset: 5 } });
  const told = [];
  const onStatus = ({ cause }) => told.push(cause);
  const follower = client(server, { WebSocket: null, streams: undefined, position, onStatus });
  assert.deepEqual(await take(follower, 2), ['t6', 't7']);
  // That is no hole.
  assert.ok(!told.includes('closed'));
  assert.equal(server.polls[0].stream, undefined);
  assert.deepEqual([server.polls[1].stream, server.polls[1].after], [STREAM, `${EPOCH}:5`]);
});

test('long-poll without a named stream resyncs in another ledger', any, async () => {
  const server = await serve();
  const empty = { stream: STREAM, epoch: 'e2', head: 40, next: 40, events: [] };
  server.pages = [empty, { status: 410, body: resync }, { ...page(41), epoch: 'e2' }];
  server.snapshotAnswers = [{ data: rows(7) }];
  const position = new MemoryPositions({ [STREAM]: { epoch: EPOCH, offset: 5 } });
  const follower = client(server, { WebSocket: null, streams: undefined, position });
  assert.deepEqual(await take(follower, 2), ['t7', 't41']);
});

for (const [count, waits] of /** @type {const} */ ([
  [4, ['0', '1']],
  [5, ['0']],
])) {
  test(`of ${count} streams ${waits.length > 1 ? 'each' : 'none'} is waited for`, any, async () => {
    const server = await serve();
    const streams = Array.from({ length: count }, (_, number) => `200043/${number}`);
    const follower = client(server, { WebSocket: null, streams });
    void follower.next();
    await until(() => server.polls.length >= 2 * count);
    assert.deepEqual([...new Set(server.polls.map(({ wait }) => wait))], waits);
    await wait(500);
    assert.ok(server.polls.length <= 3 * count);
  });
}

for (const [status, code] of [
  [400, 4002],
  [401, 4001],
  [403, 4004],
  [422, 4002],
]) {
  test(`long-poll stops where the listener refuses with ${status}`, any, async () => {
    const server = await serve();
    server.pages = [problem(status, 'some-code', { detail: 'do this' })];
    const follower = client(server, { WebSocket: null });
    const error = await stopped(follower);
    assert.equal(error.code, code);
    assert.deepEqual([follower.status.cause, follower.status.why], ['stopped', error.message]);
  });
}

test('a key of several stores without WebSocket follows those that it is told', any, async () => {
  const server = await serve();
  const streams = [STREAM, '200043/-'];
  server.pages = [problem(400, 'stream-missing', { streams }), page(1), page(2)];
  const follower = client(server, { WebSocket: null, streams: undefined });
  assert.deepEqual(await take(follower, 2), ['t1', 't2']);
  assert.deepEqual(follower.streams, streams);
});

test('a refusal that names no streams stops', any, async () => {
  const server = await serve();
  server.pages = [problem(400, 'stream-missing')];
  const error = await stopped(client(server, { WebSocket: null, streams: undefined }));
  assert.equal(error.code, 4002);
});

test('long-poll goes on after faults and broken pages', any, async () => {
  const server = await serve();
  server.pages = [
    { status: 500 },
    { body: '<html>' },
    { body: '5' },
    page(1),
    page(3),
    { ...page(2), epoch: 'e9' },
    page(2),
  ];
  assert.deepEqual(await take(client(server, { WebSocket: null }), 2), ['t1', 't2']);
});

test('an ack that the listener refuses is not sent again', any, async () => {
  const server = await serve();
  server.pages = [page(1, 2)];
  server.ackAnswers = new Array(20).fill(problem(400, 'ack-ahead'));
  await take(client(server, { WebSocket: null }), 2);
  await until(() => server.acks.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.ok(server.acks.length <= 2);
});

for (const status of [200, 302, 400, 401, 403, 404, 407]) {
  test(`an ack that somebody else answers with ${status} is sent again`, any, async () => {
    const server = await serve();
    server.pages = [page(1, 2)];
    server.ackAnswers = new Array(2).fill({ status, body: '<html>', type: 'text/html' });
    await take(client(server, { WebSocket: null }), 2);
    await until(() => server.acks.length >= 3);
  });
}

test('acks that do not get through wait longer and longer', any, async () => {
  const server = await serve();
  server.pages = [page(1, 2)];
  server.ackAnswers = new Array(99).fill({ status: 403 });
  const timing = { ...FAST, retryFirstMs: 50, retryMaxMs: 9000, random: () => 1 };
  await take(client(server, { WebSocket: null, timing }), 2);
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.ok(server.acks.length >= 2 && server.acks.length <= 5, String(server.acks.length));
});

test('a listener that answers at once with nothing is not asked without a pause', any, async () => {
  const server = await serve();
  server.pages = new Array(99).fill({ ...page(0), events: [] });
  const follower = client(server, { WebSocket: null });
  void follower.next();
  await until(() => follower.status.state === 'live');
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.ok(server.polls.length <= 5, String(server.polls.length));
  follower.close();
});

test('a clock that is set back keeps nothing from coming', any, async (context) => {
  const server = await serve();
  server.pages = [page(1)];
  const follower = client(server, { WebSocket: null });
  assert.deepEqual(await take(follower, 1), ['t1']);
  const real = Date.now;
  let offMs = 0;
  context.mock.method(Date, 'now', () => real() + offMs);
  const next = follower.next();
  await until(() => server.polls.length >= 2);
  // The second is being waited for, and will bring nothing.
  offMs = -3_600_000;
  server.pages = [page(2)];
  assert.equal((await next).value.data.transactionNo, 't2');
  assert.ok(follower.status.ageMs >= 0);
});

for (const over of ['websocket', 'long-poll']) {
  const options = over === 'websocket' ? web : any;
  test(
    `a machine that slept is not live over ${over} until it hears anew`,
    options,
    async (context) => {
      const server = await serve(stay, async (call) => {
        await call.begin();
        call.event(1);
      });
      const told = [];
      const onStatus = (status) => told.push({ ...status });
      const WebSocket = over === 'websocket' ? globalThis.WebSocket : null;
      const timing = { ...FAST, pollSeconds: 2 };
      const follower = client(server, { WebSocket, onStatus, timing });
      const next = follower.next();
      await until(() => server.calls.length === 1 || server.polls.length >= 2);
      await until(() => follower.status.state === 'live');
      server.pages = [page(1)];
      const real = Date.now;
      // The steady clock stood still meanwhile.
      context.mock.method(Date, 'now', () => real() + 3_600_000);
      assert.equal((await next).value.data.transactionNo, 't1');
      const silent = told.find(({ cause }) => cause === 'silent');
      assert.match(silent.why, /slept/);
      assert.ok(silent.ageMs >= 3_600_000, String(silent.ageMs));
      assert.equal(follower.status.state, 'live');
      if (over === 'websocket') assert.equal(await server.calls[0].closed, 4201);
    },
  );
}

test('WebSocket is tried again and taken when it is back', web, async () => {
  const server = await serve(async (call) => {
    await call.begin({ after: 1 });
    call.event(2);
  });
  server.isBlocked = true;
  server.pages = [page(1)];
  const follower = client(server, { timing: { ...FAST, blockedTries: 1, websocketAgainMs: 100 } });
  assert.deepEqual(await take(follower, 1), ['t1']);
  const next = follower.next();
  await until(() => server.upgrades >= 3);
  server.isBlocked = false;
  assert.equal((await next).value.data.transactionNo, 't2');
  assert.equal(follower.status.transport, 'websocket');
});

test(
  'while WebSocket is tried again and swallowed it is not live and soon polls',
  web,
  async () => {
    const swallowed = [];
    const server = await serve(async () => {
      await wait(1000);
      swallowed.push(follower.status);
    });
    server.isBlocked = true;
    server.pages = [page(1)];
    const timing = {
      ...FAST,
      connectMs: 60_000,
      slowMs: 500,
      blockedTries: 1,
      websocketAgainMs: 100,
    };
    const follower = client(server, { timing });
    assert.deepEqual(await take(follower, 1), ['t1']);
    const next = follower.next();
    await until(() => server.upgrades >= 3);
    server.isBlocked = false;
    await until(() => server.calls.length > 0);
    server.pages = [page(2)];
    assert.equal((await next).value.data.transactionNo, 't2');
    assert.deepEqual([swallowed[0].state, swallowed[0].cause], ['connecting', 'silent']);
  },
);

test('nobody there is tried for ever, and the status says so', any, async () => {
  const server = await listen();
  await server.stop();
  const statuses = [];
  const follower = client(server, { onStatus: (status) => statuses.push(status) });
  const next = follower.next();
  await until(() => statuses.length > 3);
  assert.ok(statuses.every(({ state, ageMs }) => state === 'connecting' && ageMs === null));
  follower.close();
  assert.deepEqual(await next, { done: true, value: undefined });
});

test("a fault of the program's own callback reaches the program", any, async () => {
  const server = await serve();
  const onStatus = ({ state }) => {
    if (state === 'live') throw new RangeError('mine');
  };
  const follower = client(server, { WebSocket: null, onStatus });
  await assert.rejects(() => follower.next(), RangeError);
});

const refusing = {
  // As many stores answer that hold nothing yet.
  load: () => Promise.resolve(null),
  save: () => Promise.reject(new RangeError('mine')),
};
const onResync = () => {
  throw new RangeError('mine');
};
for (const options of [{ position: refusing }, { onResync }]) {
  const [what] = Object.keys(options);
  test(`a loop that the program's own ${what} ends is live no more`, web, async () => {
    const server = await serve(async (call) => {
      await call.begin();
      call.event(1);
      call.send({ type: 'resync', ...resync });
    });
    const follower = client(server, options);
    await assert.rejects(async () => {
      for await (const _ of follower);
    }, RangeError);
    const { state, transport, cause, why } = follower.status;
    assert.deepEqual([state, transport, cause], ['stopped', null, 'stopped']);
    assert.match(why, /failed/);
    await assert.rejects(() => follower.next(), RangeError);
    assert.equal(await server.calls[0].closed, 1000);
  });
}

test('an abort signal stops it, and acks can be left out', any, async () => {
  const server = await serve();
  server.pages = [page(1, 2)];
  const stop = new AbortController();
  const follower = client(server, { WebSocket: null, acks: false, signal: stop.signal });
  await take(follower, 2);
  const next = follower.next();
  stop.abort();
  assert.equal((await next).done, true);
  assert.deepEqual(server.acks, []);
  const late = client(server, { signal: AbortSignal.abort() });
  assert.equal((await late.next()).done, true);
});

test('what cannot be followed is refused at once', any, () => {
  assert.throws(() => follow('ftp://x', { key: KEY }), TypeError);
  assert.throws(() => follow('http://x/?key=1', { key: KEY }), TypeError);
  assert.throws(() => follow('http://x/', { key: '' }), TypeError);
  assert.ok(follow('wss://x/v1/pos/stream', { key: KEY }) instanceof Follower);
});

test('each close code has its duty', any, () => {
  assert.equal(dutyOf(1012), 'restart');
  assert.equal(dutyOf(1009), 'stop');
  assert.equal(dutyOf(4099), 'stop');
  assert.equal(dutyOf(4199), 'backOffLonger');
  assert.equal(dutyOf(4200), 'atOnce');
  assert.equal(dutyOf(4300), 'backOff');
});

test('an event that comes twice is taken once', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    call.event(1);
    call.event(1, { no: 'again' });
    call.event(2);
  });
  assert.deepEqual(await take(client(server), 2), ['t1', 't2']);
  assert.equal(server.upgrades, 1);
});

test('closing sends the ack that waits but not for the event in hand', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    for (const offset of [1, 2, 3]) call.event(offset);
  });
  const follower = client(server, { timing: { ...FAST, ackMs: 3000 } });
  await take(follower, 2);
  await until(() => server.calls[0].acks().length === 1);
  await take(follower, 1);
  follower.close();
  await server.calls[0].closed;
  assert.deepEqual(server.calls[0].acks(), [1, 2]);
});

test('state versions are forgotten with the position', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    call.event(1, { no: 't7', version: 9 });
    call.send({ type: 'resync', ...resync, head: 4 });
    call.event(5, { no: 't7', version: 6 });
  });
  server.snapshotAnswers = [{ data: rows(7) }];
  const follower = client(server);
  const versions = [];
  while (versions.length < 3) versions.push((await follower.next()).value.data.stateVersion);
  assert.deepEqual(versions, [9, 5, 6]);
});

test('a listener that was only down is not taken for a blocked one', web, async () => {
  const server = await serve(async (call) => {
    await call.begin({ after: 1 });
    call.event(2);
  });
  server.isBlocked = true;
  server.pages = [page(1)];
  const follower = client(server, {
    fetch: (address, init) => {
      server.isBlocked &&= !String(address).includes('/v1/pos/events');
      return fetch(address, init);
    },
  });
  assert.deepEqual(await take(follower, 2), ['t1', 't2']);
  assert.equal(follower.status.transport, 'websocket');
  assert.equal(server.polls.length, 1);
});

test(
  'numbers with a zero fraction, nulls and what it does not know are read as others mean it',
  web,
  async () => {
    const server = await serve(async (call) => {
      call.raw('{"type":"hello","protocol":null,"deadSeconds":35.0,"pingSeconds":null,"x":[{}]}');
      await call.expect('connect');
      call.raw(
        `{"type":"ready","id":null,"streams":[{"stream":"${STREAM}","epoch":"e1","head":9.0,"after":0.0,"recovered":true,"y":null}]}`,
      );
      call.raw('{"type":"weather","offset":"no"}');
      call.raw('{"type":"ping","t":5.0,"heads":null}');
      call.raw('{"type":"reconnect","afterMs":null}');
      const event = JSON.stringify(eventOf(1)).replace('"stateVersion":1', '"stateVersion":1.0e0');
      call.raw(`{"type":"event","stream":"${STREAM}","offset":1.0,"event":${event},"z":1}`);
    });
    assert.deepEqual(await take(client(server), 1), ['t1']);
    assert.equal((await server.calls[0].expect('pong')).t, 5);
    assert.equal(server.upgrades, 1);
  },
);

test(
  'blanks around a key do not count, and what is no key is refused without quoting it',
  any,
  async () => {
    const server = await serve(stay);
    const follower = client(server, { key: `\ufeff ${KEY}\r\n`, WebSocket: null });
    void follower.next();
    await until(() => server.polls.length > 0);
    for (const key of ['', ' \n', 'lk_a b', 'lk_a\nb', 'lk_\u00e9']) {
      assert.throws(
        () => follow('http://x/', { key }),
        (error) => error instanceof TypeError && !error.message.includes('lk_'),
      );
    }
  },
);

test('a storage that is torn, full or forbidden stops no till', any, async () => {
  const forbidden = () => {
    throw new Error('QuotaExceededError');
  };
  const torn = ['{', '[]', 'null', `{"${STREAM}":{"epoch":"e1"}}`, `{"${STREAM}":{"offset":-1}}`];
  for (const getItem of [forbidden, ...torn.map((text) => () => text)]) {
    const position = new StoragePositions({ getItem, setItem: forbidden });
    assert.deepEqual(await position.load(), {});
    await position.save(STREAM, { epoch: EPOCH, offset: 4 });
    assert.deepEqual(await position.load(), { [STREAM]: { epoch: EPOCH, offset: 4 } });
  }
});

test("the browser's own storage is used, and may be forbidden", any, async () => {
  const kept = new Map();
  const storage = {
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, text) => kept.set(name, text),
  };
  const forbid = () => {
    throw new Error('SecurityError');
  };
  for (const get of [() => storage, forbid]) {
    kept.clear();
    Object.defineProperty(globalThis, 'localStorage', { configurable: true, get });
    try {
      const position = new StoragePositions();
      await position.save(STREAM, { epoch: EPOCH, offset: 4 });
      assert.deepEqual(await position.load(), { [STREAM]: { epoch: EPOCH, offset: 4 } });
      assert.equal(kept.size, get === forbid ? 0 : 1);
    } finally {
      delete globalThis.localStorage;
    }
  }
});

test('what was handled before a resync is acknowledged no more', web, async () => {
  const server = await serve(async (call) => {
    await call.begin({ after: 90 });
    call.event(91);
    call.event(92);
    await call.expect('ack', ({ offset }) => offset === 91);
    call.received.length = 0;
    call.send({ type: 'resync', ...resync, reason: 'offset_ahead', epoch: EPOCH, head: 40 });
  });
  server.snapshotAnswers = [{ data: rows(7) }];
  const follower = client(server);
  await take(follower, 2);
  await until(() => server.calls[0].received.length === 0);
  assert.deepEqual(await take(follower, 1), ['t7']);
  void follower.next();
  await until(() => server.calls[0].acks().length > 0);
  assert.deepEqual(server.calls[0].acks(), [40]);
});

test('why it is not live is told within a second, and who answers instead', web, async () => {
  const server = await serve(stay);
  server.isBlocked = true;
  const told = [];
  const timing = { ...FAST, blockedTries: 9 };
  const follower = client(server, { timing, onStatus: (status) => told.push(status) });
  void follower.next();
  await until(() => told.some(({ cause }) => cause === 'refused'));
  assert.match(
    told.find(({ cause }) => cause === 'refused').why,
    /answers 404, not by the listener/,
  );
  server.isBlocked = false;
  await until(() => follower.status.state === 'live');
  assert.deepEqual([follower.status.cause, follower.status.why], [null, '']);
  assert.ok(server.probes > 0);
  assert.deepEqual(server.faults, []);
});

test("somebody else's WebSocket stops nobody", web, async () => {
  const server = await serve(
    async (call) => call.close(4001),
    async (call) => {
      await call.begin();
      call.event(1);
    },
  );
  server.protocol = '';
  const socket = class extends globalThis.WebSocket {
    constructor(url) {
      super(url);
    }
  };
  const follower = client(server, { WebSocket: socket });
  assert.deepEqual(await take(follower, 1), ['t1']);
});

/** Say that the position is lost: first `ready`, then, on its own, the resync. */
async function lose(call, { epoch = 'e2', head = 40 } = {}) {
  call.hello();
  await call.expect('connect');
  const stream = { stream: STREAM, epoch, head, after: head, recovered: false };
  call.send({ type: 'ready', id: 1, streams: [stream] });
}

/** Something to wait for until it is opened. */
function gate() {
  let letGo = () => {};
  const opened = new Promise((resolve) => {
    letGo = () => resolve(undefined);
  });
  return { opened, open: () => letGo() };
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const acksOf = (call) => call.received.filter(({ type }) => type === 'ack');

test('nothing is acknowledged in a ledger of which nothing was shown', web, async () => {
  const snapshot = gate();
  const server = await serve(
    async (call) => {
      await call.begin();
      for (const offset of [1, 2, 3]) call.event(offset);
      await call.expect('ack');
      call.close(4200);
    },
    async (call) => {
      await lose(call);
      await wait(100);
      call.send({ type: 'resync', ...resync });
      await wait(100);
      call.event(41);
      await wait(100);
      assert.deepEqual(acksOf(call), []);
      snapshot.open();
    },
  );
  server.snapshotGate = snapshot.opened;
  server.snapshotAnswers = [{ data: rows(7) }];
  const follower = client(server);
  assert.deepEqual(await take(follower, 5), ['t1', 't2', 't3', 't7', 't41']);
  void follower.next();
  await until(() => server.calls[1].acks().at(-1) === 41);
  assert.deepEqual(new Set(acksOf(server.calls[0]).map(({ epoch }) => epoch)), new Set([EPOCH]));
  assert.deepEqual(new Set(acksOf(server.calls[1]).map(({ epoch }) => epoch)), new Set(['e2']));
  assert.deepEqual(server.faults, []);
});

test('of several streams only the lost one waits for its snapshot', web, async () => {
  const server = await serve(
    async (call) => {
      await call.begin({ streams: [STREAM, OTHER] });
      call.event(1);
      call.event(1, { stream: OTHER, no: 'o1' });
      call.event(2);
    },
    async (call) => {
      call.hello();
      await call.expect('connect');
      const lost = { stream: STREAM, epoch: EPOCH, head: 9, after: 9, recovered: false };
      const kept = { stream: OTHER, epoch: EPOCH, head: 1, after: 1, recovered: true };
      call.send({ type: 'ready', id: 1, streams: [lost, kept] });
    },
  );
  const follower = client(server, { streams: [STREAM, OTHER] });
  assert.deepEqual(await take(follower, 3), ['t1', 'o1', 't2']);
  server.calls[0].close(4200);
  void follower.next();
  await until(() => server.calls[1]?.acks().length > 0);
  await wait(100);
  assert.deepEqual(new Set(acksOf(server.calls[1]).map(({ stream }) => stream)), new Set([OTHER]));
  assert.notEqual(follower.status.state, 'live');
});

for (const [name, answer, cause] of /** @type {const} */ ([
  ['refused on the way', { status: 403 }, 'refused'],
  ["somebody else's page", { body: '<html>', type: 'text/html' }, 'not_websocket'],
  ['refused for now', problem(503, 'ledger-unavailable', { retry: true }), 'refused'],
])) {
  test(`while the snapshot is ${name} events go on and the status says so`, web, async () => {
    const server = await serve(async (call) => {
      await lose(call);
      call.send({ type: 'resync', ...resync });
      call.event(41, { no: 't8', version: 5 });
      call.event(42, { no: 't8', version: 6 });
    });
    server.snapshotAnswers = new Array(1000).fill(answer);
    const told = [];
    const position = new MemoryPositions({ [STREAM]: { epoch: EPOCH, offset: 3 } });
    const follower = client(server, { position, onStatus: ({ state }) => told.push(state) });
    const live = [(await follower.next()).value, (await follower.next()).value];
    assert.deepEqual(
      live.map(({ type, data }) => [type, data.stateVersion]),
      [
        ['transaction.cancelled', 5],
        ['transaction.cancelled', 6],
      ],
    );
    const next = follower.next();
    await until(() => server.snapshots.length > 5);
    const { status } = follower;
    assert.deepEqual([status.state, status.transport, status.cause], ['connecting', null, cause]);
    assert.match(status.why, /the snapshot cannot be read/);
    assert.ok(!told.includes('live'));
    // A crash must read the snapshot again, and no alarm may end for what was not shown.
    assert.equal((await position.load())[STREAM].epoch, EPOCH);
    assert.deepEqual(acksOf(server.calls[0]), []);
    server.snapshotAnswers = [
      { data: rows(9, 8), nextCursor: 'c/1' },
      { data: rows(7), nextCursor: null },
    ];
    // Of t8 a newer state was shown.
    assert.deepEqual([(await next).value.subject, ...(await take(follower, 1))], ['t9', 't7']);
    assert.equal(follower.status.state, 'connecting');
    void follower.next();
    await until(() => follower.status.state === 'live');
    assert.deepEqual([follower.status.why, told.at(-1)], ['', 'live']);
    assert.deepEqual((await position.load())[STREAM], { epoch: 'e2', offset: 42 });
    await until(() => server.calls[0].acks().length > 0);
    assert.deepEqual(server.calls[0].acks(), [42]);
    assert.deepEqual(server.faults, []);
  });
}

test('a snapshot that is never answered holds up no event', web, async () => {
  const server = await serve(async (call) => {
    await lose(call);
    call.send({ type: 'resync', ...resync });
    call.event(41);
  });
  const snapshot = gate();
  server.snapshotGate = snapshot.opened;
  server.snapshotAnswers = [{ data: rows(9) }];
  const follower = client(server);
  assert.deepEqual(await take(follower, 1), ['t41']);
  assert.equal(follower.status.state, 'connecting');
  assert.match(follower.status.why, /not read yet/);
  snapshot.open();
  assert.deepEqual(await take(follower, 1), ['t9']);
});

test('a transaction that a restore took to another stream is shown', web, async () => {
  const server = await serve(
    async (call) => {
      await call.begin({ streams: [STREAM, OTHER] });
      call.event(1, { stream: OTHER, no: 't7', version: 6 });
      await call.expect('ack');
      call.close(4200);
    },
    async (call) => {
      call.hello();
      await call.expect('connect');
      const lost = { epoch: 'e2', head: 40, after: 40, recovered: false };
      const streams = [STREAM, OTHER].map((stream) => ({ stream, ...lost }));
      call.send({ type: 'ready', id: 1, streams });
      for (const { stream } of streams) call.send({ type: 'resync', ...resync, stream });
    },
  );
  server.snapshotAnswers = [{ data: rows(7) }, { data: rows(8) }];
  const follower = client(server, { streams: [STREAM, OTHER] });
  // The version that was held of t7 is one of the ledger before.
  assert.deepEqual(await take(follower, 3), ['t7', 't7', 't8']);
});

test('a later resync replaces a snapshot that was not read', web, async () => {
  const server = await serve(
    async (call) => {
      await lose(call);
      call.send({ type: 'resync', ...resync });
      call.event(41);
      call.close(4200);
    },
    async (call) => {
      await lose(call, { epoch: 'e3', head: 2 });
      call.send({ type: 'resync', ...resync, epoch: 'e3', head: 2 });
      call.event(3);
    },
  );
  const told = [];
  const position = new MemoryPositions({ [STREAM]: { epoch: EPOCH, offset: 3 } });
  const follower = client(server, { position, onResync: ({ epoch }) => told.push(epoch) });
  assert.deepEqual(await take(follower, 2), ['t41', 't3']);
  // The older one may just have been asked for.
  server.snapshotAnswers = [{ data: rows(7) }, { data: rows(8) }];
  assert.match((await follower.next()).value.id, /^e3-snapshot/);
  void follower.next();
  await until(() => follower.status.state === 'live');
  assert.deepEqual(await position.load(), { [STREAM]: { epoch: 'e3', offset: 3 } });
  const asked = server.snapshots.length;
  await wait(100);
  assert.equal(server.snapshots.length, asked);
  assert.deepEqual(told, ['e2', 'e3']);
});

test('heads of before a resync are not ahead of what comes after it', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    call.send({ type: 'ping', t: 1, heads: { [STREAM]: 9 } });
    call.send({ type: 'resync', ...resync, head: 2 });
    await wait(5 * FAST.behindMs);
    call.event(3);
  });
  server.snapshotAnswers = [{ data: rows(7) }];
  assert.deepEqual(await take(client(server), 2), ['t7', 't3']);
  assert.equal(server.upgrades, 1);
});

test('a snapshot of a store that is gone stops nobody', web, async () => {
  const server = await serve(
    async (call) => {
      call.hello();
      await call.expect('connect');
      const gone = { stream: STREAM, epoch: 'e2', head: 40, after: 40, recovered: false };
      const kept = { stream: OTHER, epoch: EPOCH, head: 0, after: 0, recovered: true };
      call.send({ type: 'ready', id: 1, streams: [gone, kept] });
      call.send({ type: 'resync', ...resync });
    },
    async (call) => {
      await call.begin({ streams: [OTHER] });
      call.event(1, { stream: OTHER });
    },
  );
  server.snapshotAnswers = new Array(1000).fill(problem(403, 'stream-not-allowed'));
  const follower = client(server, { streams: undefined });
  const next = follower.next();
  await until(() => server.snapshots.length > 2);
  assert.equal(follower.status.state, 'connecting');
  server.calls[0].close(4200);
  assert.equal((await next).value.subject, 't1');
  assert.equal(follower.status.state, 'live');
  const asked = server.snapshots.length;
  void follower.next();
  await wait(100);
  assert.ok(server.snapshots.length <= asked + 1);
});

test('of many snapshots four are read at a time', web, async () => {
  const names = Array.from({ length: 6 }, (_, number) => `200043/${number}`);
  const server = await serve(async (call) => {
    call.hello();
    await call.expect('connect');
    const lost = { epoch: 'e2', head: 40, after: 40, recovered: false };
    call.send({ type: 'ready', id: 1, streams: names.map((stream) => ({ stream, ...lost })) });
    for (const stream of names) call.send({ type: 'resync', ...resync, stream });
  });
  const snapshot = gate();
  server.snapshotGate = snapshot.opened;
  server.snapshotAnswers = names.map((_, number) => ({ data: rows(number) }));
  const taken = take(client(server, { streams: names }), names.length);
  await until(() => server.snapshots.length === 4);
  await wait(100);
  assert.equal(server.snapshots.length, 4);
  snapshot.open();
  assert.equal(new Set(await taken).size, names.length);
});

test('closing while a snapshot is awaited ends the loop', web, async () => {
  const server = await serve(async (call) => {
    await lose(call);
    call.send({ type: 'resync', ...resync });
    call.event(41);
  });
  const snapshot = gate();
  server.snapshotGate = snapshot.opened;
  const follower = client(server);
  const next = follower.next();
  await until(() => server.snapshots.length > 0);
  follower.close();
  assert.equal((await next).done, true);
  snapshot.open();
});

test('long-poll is not live either while the snapshot cannot be read', any, async () => {
  const server = await serve();
  const idle = { ...page(41), events: [], epoch: 'e2' };
  server.pages = [
    page(1, 2),
    { status: 410, body: { ...resync, type: 'about:blank' } },
    { ...page(41), epoch: 'e2' },
    ...new Array(99).fill(idle),
  ];
  const follower = client(server, { WebSocket: null });
  assert.deepEqual(await take(follower, 3), ['t1', 't2', 't41']);
  const next = follower.next();
  await until(() => server.snapshots.length > 3);
  assert.deepEqual([follower.status.state, follower.status.cause], ['connecting', 'refused']);
  assert.ok(server.acks.every(({ epoch }) => epoch === EPOCH));
  server.snapshotAnswers = [{ data: rows(7) }];
  assert.equal((await next).value.subject, 't7');
  void follower.next();
  await until(() => server.acks.some(({ epoch, offset }) => epoch === 'e2' && offset === 41));
  assert.deepEqual([follower.status.state, follower.status.transport], ['live', 'long-poll']);
});

test('what is handled after a resync may be of before, and is not acknowledged', web, async () => {
  const server = await serve(async (call) => {
    await call.begin();
    call.event(1);
    call.event(2);
    call.send({ type: 'resync', ...resync, reason: 'offset_ahead', epoch: EPOCH, head: 1 });
    call.event(2, { no: 'new2' });
  });
  const follower = client(server);
  assert.deepEqual(await take(follower, 1), ['t1']);
  await wait(50);
  assert.deepEqual(await take(follower, 2), ['t2', 'new2']);
  const next = follower.next();
  await wait(100);
  assert.deepEqual(server.calls[0].acks(), []);
  server.snapshotAnswers = [{ data: rows(7) }];
  assert.equal((await next).value.subject, 't7');
  void follower.next();
  await until(() => server.calls[0].acks().length > 0);
  assert.deepEqual(server.calls[0].acks(), [2]);
});

test('long-poll from the old position is live where the old ledger is back', web, async () => {
  const server = await serve(async (call) => {
    await lose(call);
    server.isBlocked = true;
    call.close(4200);
  });
  server.pages = [page(4)];
  const position = new MemoryPositions({ [STREAM]: { epoch: EPOCH, offset: 3 } });
  const follower = client(server, { position });
  assert.deepEqual(await take(follower, 1), ['t4']);
  void follower.next();
  await until(() => server.acks.some(({ offset }) => offset === 4));
  // Between two polls WebSocket is tried again.
  await until(() => follower.status.state === 'live');
});
