/** Follow the ledger's entries by long-poll, which a key of the role `ledger` may do. */

const WAIT_SECONDS = 25;
const GRACE_MS = 10_000;
const PAGE = 500;
const RETRY_MS = 2000;

/**
 * Call `onEntries(entries)` with each page of new entries, for ever; `onStatus` as the POS client does.
 *
 * Returns what ends it. A key that was revoked is told by `onRefused(error)`.
 */
export function pollEntries(api, { onEntries, onStatus, onRefused }) {
  let isEnded = false;
  let state = 'connecting';
  let wordAt;
  const tell = () =>
    onStatus({
      state,
      transport: 'long-poll',
      ageMs: wordAt === undefined ? null : Math.round(performance.now() - wordAt),
    });
  const ticker = setInterval(tell, 1000);

  async function turn(position) {
    const { epoch, seq } = position ?? (await api.get('/v1/ledger'));
    wordAt = performance.now();
    state = 'live';
    tell();
    const query = { after: seq, limit: PAGE, wait: position === undefined ? 0 : WAIT_SECONDS };
    const page = await api.get('/v1/entries', { query, ms: WAIT_SECONDS * 1000 + GRACE_MS });
    wordAt = performance.now();
    // Another ledger has other numbers: begin again at its head.
    if (page.epoch !== epoch) return undefined;
    if (page.data.length > 0 && !isEnded) onEntries(page.data);
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
        state = 'connecting';
        tell();
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS * (0.5 + Math.random())));
      }
    }
  }

  run();
  return () => {
    isEnded = true;
    clearInterval(ticker);
  };
}
