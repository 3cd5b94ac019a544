/** A listener that follows a script, on Node's http alone, so that it can say anything. */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
export const KEY = 'lk_test_0123456789';
export const EPOCH = 'e1';
export const STREAM = '200043/303660';

export function transaction(number, { no = `t${number}`, version = 1 } = {}) {
  return {
    transactionNo: no,
    merchantNo: '200043',
    storeNo: '303660',
    status: 'cancelled',
    stateVersion: version,
    amount: '13.00',
    currency: 'USD',
    updatedAt: '2026-11-23T10:11:12.345Z',
  };
}

export function event(number, options) {
  return {
    specversion: '1.0',
    id: `${EPOCH}-${number}`,
    source: '/listener',
    type: 'transaction.cancelled',
    subject: `t${number}`,
    time: '2026-11-23T10:11:12.345Z',
    datacontenttype: 'application/json',
    data: transaction(number, options),
  };
}

/** One connection, as its script sees it. */
class Call {
  received = [];
  closeCode = undefined;
  #socket;
  #buffer = Buffer.alloc(0);
  #waiting = new Set();

  constructor(socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        resolve(this.closeCode ?? 1006);
        for (const wait of this.#waiting) wait();
      });
    });
    socket.on('error', () => {});
    socket.on('data', (data) => this.#read(data));
  }

  send(frame) {
    this.raw(JSON.stringify(frame));
  }

  raw(text) {
    this.#write(0x81, Buffer.from(text));
  }

  close(code) {
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(code);
    this.#write(0x88, payload);
    this.#socket.end();
  }

  abort() {
    this.#socket.destroy();
  }

  hello(changes) {
    this.send({
      type: 'hello',
      protocol: 'pos.v1',
      session: 's',
      pingSeconds: 20,
      deadSeconds: 35,
      reconnectJitterMs: 10,
      ...changes,
    });
  }

  ready({ streams = [STREAM], after = 0, epoch = EPOCH } = {}) {
    const all = streams.map((stream) => ({ stream, epoch, head: 9, after, recovered: true }));
    this.send({ type: 'ready', id: 1, streams: all });
  }

  /** @param {{ after?: number, streams?: string[], [name: string]: any }} [options] */
  async begin({ after = 0, streams, ...changes } = {}) {
    this.hello(changes);
    const connect = await this.expect('connect');
    this.ready({ after, streams });
    return connect;
  }

  event(offset, options) {
    this.send({
      type: 'event',
      stream: options?.stream ?? STREAM,
      offset,
      event: event(offset, options),
    });
  }

  acks() {
    return this.received.filter(({ type }) => type === 'ack').map(({ offset }) => offset);
  }

  /**
   * Wait until a frame came.
   *
   * @param {string} type
   * @param {(frame: any) => boolean} [isIt]
   */
  async expect(type, isIt = () => true) {
    for (;;) {
      const found = this.received.find((frame) => frame.type === type && isIt(frame));
      if (found) return found;
      if (this.#socket.destroyed) throw new Error(`closed before ${type}`);
      await new Promise((resolve) => this.#waiting.add(resolve));
    }
  }

  #write(first, payload) {
    let head = Buffer.from([first, payload.length]);
    if (payload.length > 125) {
      head = Buffer.from([first, 126, 0, 0]);
      head.writeUInt16BE(payload.length, 2);
    }
    if (!this.#socket.destroyed) this.#socket.write(Buffer.concat([head, payload]));
  }

  #read(data) {
    this.#buffer = Buffer.concat([this.#buffer, data]);
    for (;;) {
      if (this.#buffer.length < 2) return;
      let length = this.#buffer[1] & 0x7f;
      let at = 2;
      if (length === 126) {
        if (this.#buffer.length < 4) return;
        length = this.#buffer.readUInt16BE(2);
        at = 4;
      }
      if (this.#buffer.length < at + 4 + length) return;
      const mask = this.#buffer.subarray(at, at + 4);
      const payload = this.#buffer
        .subarray(at + 4, at + 4 + length)
        .map((byte, i) => byte ^ mask[i % 4]);
      const opcode = this.#buffer[0] & 0x0f;
      this.#buffer = this.#buffer.subarray(at + 4 + length);
      if (opcode === 8) {
        this.closeCode ??= payload.length ? Buffer.from(payload).readUInt16BE(0) : 1005;
        this.#write(0x88, Buffer.from(payload));
        this.#socket.end();
      } else if (opcode === 1) {
        this.received.push(JSON.parse(Buffer.from(payload).toString()));
        for (const wait of this.#waiting) wait();
        this.#waiting.clear();
      }
    }
  }
}

/** A listener whose connections follow scripts, one each; the last one again and again. */
export async function listen(...scripts) {
  const state = {
    calls: [],
    polls: [],
    acks: [],
    snapshots: [],
    pages: [],
    snapshotAnswers: [],
    snapshotGate: undefined,
    ackAnswers: [],
    upgrades: 0,
    protocol: 'Sec-WebSocket-Protocol: pos.v1\r\n',
    probes: 0,
    isBlocked: false,
    faults: [],
  };
  const open = new Set();
  const reply = (response, status, body, type = 'application/json') => {
    response.writeHead(status, { 'Content-Type': type });
    response.end(
      body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
    );
  };
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://x');
    if (request.url.includes(KEY)) state.faults.push(new Error('the key is in a URL'));
    if (url.pathname === '/v1/pos/stream') {
      // What a client asks when no WebSocket opens; its key is not needed for that.
      const { authorization, 'x-listener-key': own } = request.headers;
      if (authorization || own) state.faults.push(new Error('the key was sent'));
      state.probes += 1;
      return reply(response, state.isBlocked ? 404 : 426);
    }
    if (request.headers.authorization !== `Bearer ${KEY}`) return reply(response, 401);
    if (request.headers['x-listener-key'] !== KEY) return reply(response, 401);
    if (url.pathname === '/v1/pos/events') {
      state.polls.push(Object.fromEntries(url.searchParams));
      const given = state.pages.shift();
      if (given) return reply(response, given.status ?? 200, given.body ?? given, given.type);
      const after = url.searchParams.get('after') ?? `${EPOCH}:0`;
      const next = Number(after.split(':')[1]);
      const empty = { stream: STREAM, epoch: EPOCH, head: next, next, events: [] };
      setTimeout(() => reply(response, 200, empty), Number(url.searchParams.get('wait')) * 1000);
    } else if (url.pathname === '/v1/pos/acks') {
      let body = '';
      for await (const part of request) body += part;
      state.acks.push(JSON.parse(body));
      const { status, body: told, type } = state.ackAnswers.shift() ?? { status: 204 };
      reply(response, status, told, type);
    } else {
      state.snapshots.push(Object.fromEntries(url.searchParams));
      await state.snapshotGate;
      // Without an answer, somebody in between refuses.
      const answer = state.snapshotAnswers.shift() ?? { status: 403 };
      reply(response, answer.status ?? 200, answer.body ?? answer, answer.type);
    }
  });
  server.on('connection', (socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
  });
  server.on('upgrade', (request, socket) => {
    state.upgrades += 1;
    if (request.url.includes(KEY)) state.faults.push(new Error('the key is in a URL'));
    if (state.isBlocked) {
      socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    const accept = createHash('sha1')
      .update(request.headers['sec-websocket-key'] + GUID)
      .digest('base64');
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        `Sec-WebSocket-Accept: ${accept}\r\n${state.protocol}\r\n`,
    );
    const call = new Call(socket);
    state.calls.push(call);
    const script = scripts.length > 1 ? scripts.shift() : scripts[0];
    script?.(call).catch((error) => state.faults.push(error));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return Object.assign(state, {
    url: `http://127.0.0.1:${port}`,
    stop() {
      for (const socket of open) socket.destroy();
      return new Promise((resolve) => server.close(resolve));
    },
  });
}

/**
 * The answer of the listener itself where it refuses.
 *
 * @param {number} status
 * @param {string} code
 * @param {{ retry?: boolean, [name: string]: any }} [options]
 */
export function problem(status, code, { retry = false, ...members } = {}) {
  const type = `urn:pockyt-listener:problem:${code}`;
  return { status, type: 'application/problem+json', body: { type, code, retry, ...members } };
}

export function page(...offsets) {
  const events = offsets.map((offset) => ({ stream: STREAM, offset, event: event(offset) }));
  return { stream: STREAM, epoch: EPOCH, head: offsets.at(-1), next: offsets.at(-1), events };
}

/** Poll until something shows, for five seconds at most. */
export async function until(isDone) {
  const end = Date.now() + 5000;
  while (!isDone()) {
    if (Date.now() > end) throw new Error(`never: ${isDone}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
