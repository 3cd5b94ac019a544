/** Follow the ledger's entries by long-poll, which a key of the role `ledger` may do. */

const WAIT_SECONDS = 25;
const GRACE_MS = 10_000;
const PAGE = 500;
const RETRY_MS = 2000;
// So far ahead of the steady clock, which stands still meanwhile, is that of the day after the machine slept.
const ASLEEP_MS = 10_000;

/**
 * Call `onEntries(entries)` with each page of new entries, for ever; `onStatus` as the POS client does.
 * `onReset()` says that the ledger is another one: what was shown is to be forgotten.
 *
 * Returns what ends it. A key that was revoked is told by `onRefused(error)`.
 */
export function pollEntries(api, { onEntries, onReset, onStatus, onRefused }) {
  let isEnded = false;
  let state = 'connecting';
  let why = '';
  let wordAt;
  let asked = new AbortController();
  /** Why the request under way was given up; it says so where that fails. */
  let doubt;
  let ahead = aheadMs();
  const tell = () =>
    onStatus({
      state,
      transport: 'long-poll',
      ageMs: wordAt === undefined ? null : Math.round(performance.now() - wordAt),
      why,
    });
  const ticker = setInterval(tick, 1000);
  const onOffline = () => distrust('this device is offline');
  addEventListener('offline', onOffline);

  function tick() {
    const sleptMs = aheadMs() - ahead;
    ahead += sleptMs;
    if (sleptMs >= ASLEEP_MS) {
      if (wordAt !== undefined) wordAt -= sleptMs;
      distrust('this machine slept, or its clock was set');
    }
    tell();
  }

  /** Ask anew: the line is probably gone, and nobody would say so for long. */
  function distrust(reason) {
    doubt = reason;
    asked.abort();
  }

  function change(now, reason = '') {
    [state, why] = [now, reason];
    tell();
  }

  async function turn(position) {
    [asked, doubt] = [new AbortController(), undefined];
    const { signal } = asked;
    const { epoch, seq } = position ?? (await api.get('/v1/ledger', { signal }));
    // Only an answer makes it live: while it is not, the listener is not asked to wait with one.
    const wait = state === 'live' ? WAIT_SECONDS : 0;
    const query = { after: seq, limit: PAGE, wait };
    const page = await api.get('/v1/entries', { query, ms: wait * 1000 + GRACE_MS, signal });
    if (isEnded) return undefined;
    wordAt = performance.now();
    if (page.epoch !== epoch) {
      // Another ledger has other numbers: begin again at its head, and have all of it read.
      change('connecting', 'the ledger is another one');
      onReset();
      return undefined;
    }
    if (page.data.length > 0) onEntries(page.data);
    change('live');
    return { epoch, seq: page.data.length < PAGE ? page.head : page.data.at(-1).seq };
  }

  async function run() {
    let position;
    while (!isEnded) {
      try {
        position = await turn(position);
      } catch (error) {
        if (isEnded) return;
        if (error.status === 401) return onRefused(error);
        change('connecting', doubt ?? error.why);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS * (0.5 + Math.random())));
      }
    }
  }

  run();
  return () => {
    isEnded = true;
    clearInterval(ticker);
    removeEventListener('offline', onOffline);
    asked.abort();
  };
}

/** How far the clock of the day is ahead of the steady one. */
function aheadMs() {
  return Date.now() - performance.now();
}
