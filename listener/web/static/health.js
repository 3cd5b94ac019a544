/** Show the state of the ledger and of Pockyt, and which tills are connected. */

import { ApiError } from './api.js';
import { at, h, reconcile, say } from './dom.js';
import { buckets, quantile, reading } from './metrics.js';
import { icon } from './statuses.js';
import { ago, moment, span } from './times.js';

const CALLS_READ = 200;
const CALLS_SHOWN = 20;
// As `listener check` has it; a node that publishes what it reads is a few events behind.
const LAG_MAX = 10_000;
const CLOCK_MS_MAX = 1_000;

/** Read everything that health is shown from; what cannot be read is an error in its place. */
export async function readHealth(api) {
  const safe = (promise) => promise.catch((error) => error);
  const [ready, head] = await Promise.all([safe(api.get('/readyz')), safe(api.get('/v1/ledger'))]);
  const query = { after: Math.max(0, (head.seq ?? 0) - CALLS_READ), limit: CALLS_READ };
  const page = head instanceof Error ? head : await safe(api.get('/v1/entries', { query }));
  return { ready, head, calls: page instanceof Error ? [] : callsOf(page.data) };
}

/**
 * Show what `readHealth` found; `metrics` where the key may see them, `nodes` where there may be
 * several.
 *
 * `asOf` is when it was read, where that is not now: then nothing is shown as good.
 */
export function showHealth({ ready, head, calls }, metrics, nodes, asOf) {
  if (asOf !== undefined) {
    at('health').replaceChildren(row('none', 'Not known now', 'Last read ', moment(asOf), '.'));
    return;
  }
  // Without an answer nothing is known of the rest.
  const isAway = ready instanceof ApiError && ready.status === 0;
  const rows = isAway
    ? [row('bad', 'The listener does not answer', 'It is tried again every few seconds.')]
    : [
        ledgerRow(ready, head, metrics),
        pockytRow(calls, metrics),
        ...nodesRows(nodes),
        head instanceof Error ? '' : chainRow(head),
      ];
  at('health').replaceChildren(...rows);
}

/** Show the terminals, those with a problem first; `asOf` as in `showHealth`. */
export function showTerminals(terminals, asOf) {
  const tills = terminals.filter(({ terminal, stream }) => terminal || stream);
  tills.sort(
    (one, other) => Number(one.online) - Number(other.online) || (other.lag ?? 0) - (one.lag ?? 0),
  );
  reconcile(at('terminals'), tills, {
    keyOf: ({ name, stream }) => `${name} ${stream}`,
    signOf: ({ online, lag, unacknowledgedCancellations, lastSeenAt }) =>
      `${asOf} ${online} ${lag} ${unacknowledgedCancellations} ${lastSeenAt}`,
    draw: (terminal) => drawTerminal(terminal, asOf),
  });
  const online = tills.filter((one) => one.online).length;
  const was = asOf === undefined ? 'online' : 'were online';
  say(at('terminals-count'), tills.length ? `${online} of ${tills.length} ${was}` : '');
  at('terminals-none').hidden = tills.length > 0;
}

function drawTerminal(
  { name, terminal, stream, online, lag, lastSeenAt, unacknowledgedCancellations: unseen },
  asOf,
) {
  if (asOf !== undefined) {
    return h(
      'li',
      { class: 'tone-none' },
      h('span', { class: 'dot', 'aria-hidden': 'true' }, '○'),
      h('span', { class: 'name' }, terminal ?? name),
      h('span', { class: 'what' }, online ? 'was online ' : 'was offline ', moment(asOf)),
    );
  }
  const facts = [
    stream ? storeOf(stream) : undefined,
    lag ? `${lag} behind` : 'up to date',
    unseen ? `${unseen} cancellation${unseen === 1 ? '' : 's'} unseen` : undefined,
  ].filter(Boolean);
  return h(
    'li',
    { class: online ? (lag ? 'tone-warn' : 'tone-good') : 'tone-bad' },
    h('span', { class: 'dot', 'aria-hidden': 'true' }, online ? '●' : '○'),
    h('span', { class: 'name' }, terminal ?? name),
    h('span', { class: 'is-online' }, online ? 'online' : 'offline'),
    h(
      'span',
      { class: 'what' },
      facts.join(' · '),
      ...(online || !lastSeenAt ? [] : [' · seen ', ago(lastSeenAt)]),
    ),
  );
}

function storeOf(stream) {
  const [, storeNo] = stream.split('/');
  return storeNo && storeNo !== '-' ? `store ${storeNo}` : `stream ${stream}`;
}

function row(tone, name, ...says) {
  const mark = { good: 'yes', bad: 'no', warn: 'alarm', none: 'created' }[tone];
  return h('div', { class: `tone-${tone}` }, icon(mark), h('dt', {}, name), h('dd', {}, ...says));
}

function ledgerRow(ready, head, metrics) {
  if (ready instanceof Error) return row('bad', 'The ledger accepts nothing now', ready.message);
  const waiting = metrics && reading(metrics, 'listener_ledger_waiting');
  const p99 = metrics && quantile(buckets(metrics, 'listener_commit_seconds'), 0.99);
  const says = [
    head instanceof Error
      ? undefined
      : `${head.counts.entries.toLocaleString()} entries of ${head.counts.transactions.toLocaleString()} transactions`,
    waiting !== undefined ? `${waiting} waiting` : undefined,
    p99 ? `99 % of commits within ${Math.max(1, Math.round(p99 * 1000))} ms` : undefined,
  ];
  return row('good', 'The ledger writes and syncs', says.filter(Boolean).join(' · '));
}

/** Show the listeners that share the ledger, each by its id, version and lag. */
function nodesRows(nodes) {
  if (!nodes?.length) return [];
  const versions = new Set(nodes.map(({ version }) => version));
  const isWell =
    versions.size === 1 && nodes.every((node) => node.lag <= LAG_MAX && !isApart(node));
  const title = `${nodes.length} ${nodes.length === 1 ? 'listener shares' : 'listeners share'} the ledger`;
  return [
    row(
      isWell ? 'good' : 'warn',
      title,
      h(
        'ul',
        { class: 'nodes' },
        ...nodes.map((node) =>
          h(
            'li',
            {},
            h('span', { class: 'mono' }, node.id),
            ` ${node.version} · `,
            node.lag ? `${node.lag.toLocaleString()} behind` : 'up to date',
            isApart(node) ? ` · clock ${span(Math.abs(node.clockMs))} off` : '',
            node.here ? ' · answered' : '',
          ),
        ),
      ),
      versions.size > 1 ? 'Two versions: end the rolling restart.' : '',
    ),
  ];
}

function isApart({ clockMs }) {
  return Math.abs(clockMs) > CLOCK_MS_MAX;
}

function chainRow({ seq, hash, counts }) {
  const repeats = counts.repeats ? ` · ${counts.repeats.toLocaleString()} repeats counted` : '';
  return row(
    'none',
    `Entry ${seq.toLocaleString()}`,
    h(
      'span',
      { class: 'mono', title: `Hash of the newest entry: ${hash}` },
      `${hash.slice(0, 16)}…`,
    ),
    repeats,
  );
}

/** Return the calls to Pockyt that the ledger has recorded, newest first. */
function callsOf(entries) {
  const calls = entries.filter(
    ({ kind, fields }) => (kind === 'query' || kind === 'answer') && fields.call,
  );
  return calls
    .reverse()
    .map(({ recordedAt, fields }) => ({ recordedAt, call: fields.call, error: fields.error }));
}

function pockytRow(calls, metrics) {
  if (metrics && reading(metrics, 'listener_pockyt_down') === 1) {
    return row(
      'bad',
      'Pockyt is down',
      'It failed so often that it is only probed for now; nothing that is open is lost.',
    );
  }
  const recent = calls.slice(0, CALLS_SHOWN);
  if (recent.length === 0) return row('none', 'Pockyt', 'Has not been called lately.');
  // A refusal is an answer too.
  const failed = recent.filter(({ error }) => error !== undefined && error !== 'refused');
  const [last] = recent;
  if (last === failed[0]) {
    return row(
      'bad',
      'Pockyt does not answer',
      `${last.call} failed `,
      ago(last.recordedAt),
      ` (${last.error}); ${failed.length} of the last ${recent.length} calls failed.`,
    );
  }
  const says = failed.length
    ? `; ${failed.length} of the last ${recent.length} calls failed.`
    : '.';
  return row(
    failed.length ? 'warn' : 'good',
    'Pockyt answers',
    `${last.call}, `,
    ago(last.recordedAt),
    says,
  );
}
