/** Call the listener's JSON API with a key. The key goes into a header, never into a URL. */

import { setClock } from './times.js';

const CALL_MS = 15_000;

/** The listener refused, or it was not the one that answered (`status` 0); the message is for people. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail);
    this.name = 'ApiError';
    this.status = status;
    this.code = problem.code;
    this.problem = problem;
    /** The same in the middle of a sentence. */
    this.why = problem.why ?? problem.detail;
  }

  /** Whether it says nothing about the key or the request, and may be otherwise in a moment. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export class Api {
  #key;

  constructor(key) {
    this.#key = key;
  }

  /**
   * Read a path; members of `query` that are empty are left out. An aborted `signal` gives it up.
   *
   * @param {string} path
   * @param {{ query?: Record<string, any>, ms?: number, signal?: AbortSignal }} [options]
   */
  get(path, { query = {}, ms, signal } = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
    const search = new URLSearchParams(given);
    return this.#call(search.size ? `${path}?${search}` : path, { ms, signal });
  }

  /**
   * Post a body as JSON; `headers` are beside the usual ones.
   *
   * @param {string} path
   * @param {object} [body]
   * @param {{ headers?: Record<string, string> }} [options]
   */
  post(path, body = {}, { headers } = {}) {
    return this.#call(path, { method: 'POST', body: JSON.stringify(body), headers });
  }

  /** Post a text. */
  postText(path, text) {
    return this.#call(path, {
      method: 'POST',
      body: text,
      headers: { 'Content-Type': 'text/plain' },
    });
  }

  /**
   * @param {string} path
   * @param {{ method?: string, body?: string, headers?: Record<string, string>, ms?: number,
   *   signal?: AbortSignal }} options
   * @returns {Promise<any>}
   */
  async #call(path, { method = 'GET', body, headers, ms = CALL_MS, signal: given }) {
    // Not in Authorization, which a proxy in front may need for itself, or overwrite.
    const all = { 'X-Listener-Key': this.#key, ...headers };
    if (body !== undefined) all['Content-Type'] ??= 'application/json';
    const began = performance.now();
    let answer;
    let text;
    try {
      const timeout = AbortSignal.timeout(ms);
      const signal = given === undefined ? timeout : AbortSignal.any([timeout, given]);
      answer = await fetch(path, {
        method,
        body,
        headers: all,
        signal,
        cache: 'no-store',
        redirect: 'error',
      });
      setClock(answer.headers.get('Date'), performance.now() - began);
      text = await answer.text();
    } catch {
      throw unanswered('the listener does not answer');
    }
    const type = answer.headers.get('Content-Type') ?? '';
    // What is read here is never a page: a proxy's error is, and the sign-on page of a network.
    if (/^text\/html\b/i.test(type)) {
      throw unanswered(`not the listener, but something on the way answered (${answer.status})`);
    }
    /** @type {any} */
    let content = text;
    try {
      if (/[/+]json\b/.test(type) && text) content = JSON.parse(text);
    } catch {
      throw unanswered('the answer was cut off on the way');
    }
    if (answer.ok) return content;
    const problem = content?.detail
      ? content
      : { code: 'failed', detail: `The listener answered ${answer.status}.` };
    throw new ApiError(answer.status, problem);
  }
}

function unanswered(why) {
  const detail = `${why[0].toUpperCase()}${why.slice(1)}. Try again.`;
  return new ApiError(0, { code: 'no-answer', detail, why });
}

/** Name the path of a transaction, or of what can be done with it. */
export function pathOf({ transactionNo }, action) {
  const path = `/v1/transactions/${encodeURIComponent(transactionNo)}`;
  return action === undefined ? path : `${path}/${action}`;
}
