/** Show what needs a person: open cancels, conflicts and doubts, by kind and store. */

import { at, h, reconcile, say } from './dom.js';
import { STATUSES, icon, money, wordOf } from './statuses.js';
import { ago } from './times.js';

// In the order of their urgency.
const CASES = [
  {
    name: 'conflict',
    tone: 'bad',
    applies: ({ status }) => status === 'conflict',
    title: wordOf('conflict'),
    todo: 'Pockyt said both paid and cancelled. Keep the goods and give no money back yet. Ask Pockyt; if it cannot tell, look the number up in Pockyt’s portal and record a decision.',
    mayDecide: true,
  },
  {
    name: 'unresolved',
    tone: 'bad',
    applies: ({ cancel }) => cancel?.state === 'unresolved',
    title: wordOf('unresolved'),
    todo: 'A cancel has no answer, so the customer may still be able to pay. Pockyt is asked automatically for 48 hours; ask now, or look the number up in Pockyt’s portal and record a decision.',
    mayDecide: true,
  },
  {
    name: 'unseen',
    tone: 'warn',
    applies: () => false,
    title: 'Unseen cancellation',
    todo: 'No till has acknowledged it. Call the shop and tell them; then see whether its till is online.',
    mayDecide: false,
  },
  {
    name: 'held',
    tone: 'warn',
    applies: ({ held }) => held,
    title: wordOf('held'),
    todo: 'A notification is signed, but differs from the sale or is ambiguous. Pockyt is asked automatically; the story says why.',
    mayDecide: true,
  },
  {
    name: 'unanswered',
    tone: 'warn',
    applies: ({ transactionNo, cancel }) => !transactionNo && cancel?.state !== 'requested',
    title: 'Sale without an answer',
    todo: 'Pockyt did not answer when it was started, so the customer may be able to pay. Pockyt is asked by its reference for 48 hours; look the reference up in Pockyt’s portal.',
    mayDecide: false,
  },
  {
    name: 'unknown',
    tone: 'warn',
    applies: ({ transactionNo, status }) => transactionNo && status === 'unknown',
    title: wordOf('unknown'),
    todo: `${STATUSES.unknown.says} Pockyt is asked by itself. If it stays so, look the number up in Pockyt’s portal and record a decision.`,
    mayDecide: true,
  },
  {
    name: 'cancelling',
    tone: 'calm',
    applies: ({ cancel }) => cancel?.state === 'requested',
    title: wordOf('cancelling'),
    todo: 'Pockyt has been told and has not answered yet. Nothing to do; after 60 seconds it is raised here.',
    mayDecide: false,
  },
];
const UNSEEN = CASES.find(({ name }) => name === 'unseen');
// How many rows of a group, and how many groups, are shown; the counts include all.
const ROWS_MAX = 100;
const GROUPS_MAX = 100;

/** Return why a transaction needs a person; undefined where it does not. */
export function caseOf(transaction) {
  return CASES.find(({ applies }) => applies(transaction));
}

/**
 * Show a card for each kind and store. `unseen` are the cancellations that no till has seen, `sales`
 * those to which Pockyt has given no number. `unread`: that not all was read yet, or why not; else ''.
 */
export function showAttention({ transactions, unseen, sales, unread, ...actions }) {
  const items = [...transactions, ...sales]
    .map((transaction) => ({ transaction, found: caseOf(transaction) }))
    .filter(({ found }) => found !== undefined)
    .concat(unseen.map((transaction) => ({ transaction, found: UNSEEN })));
  const groups = groupsOf(items);
  reconcile(at('attention'), groups.slice(0, GROUPS_MAX), {
    keyOf: ({ key }) => key,
    signOf: ({ rows }) =>
      `${rows.length} ${actions.canAct} ${rows
        .slice(0, ROWS_MAX)
        .map(
          ({ transactionNo, reference, stateVersion }) =>
            `${transactionNo ?? reference}/${stateVersion}`,
        )
        .join(' ')}`,
    draw: (group) => card(group, actions),
  });
  say(at('attention-count'), items.length ? String(items.length) : '');
  say(at('attention-none'), unread || 'Nothing needs you: no open cancel, no conflict.');
  at('attention-none').hidden = items.length > 0 && !unread;
}

/** Group what has the same kind and store, the most urgent first. */
function groupsOf(items) {
  const groups = new Map();
  for (const { transaction, found } of items) {
    const key = `${found.name} ${transaction.merchantNo}/${transaction.storeNo ?? '-'}`;
    if (!groups.has(key)) groups.set(key, { key, found, rows: [] });
    groups.get(key).rows.push(transaction);
  }
  return [...groups.values()].sort(
    (one, other) => CASES.indexOf(one.found) - CASES.indexOf(other.found),
  );
}

function card({ found, rows }, actions) {
  const [first] = rows;
  const isAlone = rows.length === 1;
  const title = isAlone
    ? [found.title, h('span', { class: 'amount' }, ` · ${money(first)}`)]
    : [
        `${rows.length.toLocaleString()} × ${found.title}`,
        h('span', { class: 'amount' }, sums(rows)),
      ];
  return h(
    'li',
    { class: `tone-${found.tone}` },
    icon(found.name === 'unanswered' ? 'unknown' : found.name),
    h('h3', {}, ...title),
    h(
      'div',
      { class: 'body' },
      h('p', { class: 'where' }, ...(isAlone ? whereOf(first, found, actions) : [storeOf(first)])),
      h('p', { class: 'todo' }, found.todo),
    ),
    ...(isAlone ? buttons(first, found, actions) : [list(rows, found, actions)]),
  );
}

/** List a group's transactions, folded until a person opens it. */
function list(rows, found, actions) {
  const drawn = rows
    .slice(0, ROWS_MAX)
    .map((row) =>
      h(
        'li',
        {},
        h('p', { class: 'where' }, h('b', {}, money(row)), ' · ', ...whereOf(row, found, actions)),
        ...buttons(row, found, actions),
      ),
    );
  const left = rows.length - drawn.length;
  return h(
    'details',
    { class: 'group' },
    h('summary', { 'data-focus': 'group' }, 'Show them'),
    h('ul', {}, ...drawn),
    left > 0 && h('p', { class: 'where' }, `and ${left.toLocaleString()} more`),
  );
}

function buttons(transaction, found, { canAct, onAsk, onDecide }) {
  // What has no number has no story yet: nothing can be asked or decided about it.
  const mayAct = canAct && Boolean(transaction.transactionNo);
  const outcome = h('p', { class: 'outcome', role: 'status' });
  const ask = async ({ currentTarget: button }) => {
    button.disabled = true;
    say(outcome, 'Asking Pockyt …');
    say(outcome, await onAsk(transaction));
    button.disabled = false;
  };
  const asks = { type: 'button', 'data-focus': 'ask', 'data-acts': true, onclick: ask };
  const decides = {
    type: 'button',
    'data-focus': 'decide',
    'data-acts': true,
    onclick: () => onDecide(transaction),
  };
  return [
    h(
      'div',
      { class: 'buttons' },
      mayAct && found !== UNSEEN && h('button', asks, 'Ask Pockyt now'),
      mayAct && found.mayDecide && h('button', decides, 'Decide …'),
    ),
    outcome,
  ];
}

function whereOf(transaction, found, { hrefOf }) {
  const isCancel = found.name === 'cancelling' || found.name === 'unresolved';
  const sinceWhat = found.name === 'unanswered' ? 'started ' : 'last word ';
  const since = isCancel
    ? ['asked for ', ago(transaction.cancel.requestedAt)]
    : [sinceWhat, ago(transaction.updatedAt)];
  const name = transaction.reference ?? transaction.transactionNo;
  const link = {
    href: hrefOf(transaction),
    'data-focus': 'story',
    'aria-label': `Story of ${name}`,
  };
  const told = transaction.transactionNo ? h('a', link, name) : name;
  return [told, ' · ', placeOf(transaction), ' · ', ...since];
}

function storeOf({ storeNo }) {
  return storeNo ? `store ${storeNo}` : 'no store';
}

function placeOf(transaction) {
  return [storeOf(transaction), transaction.terminal].filter(Boolean).join(', ');
}

/** Add amounts up by currency, in the smallest unit so that nothing is rounded. */
function sums(rows) {
  const cents = new Map();
  for (const { amount, currency } of rows) {
    if (!/^\d+(\.\d{1,2})?$/.test(amount ?? '')) continue;
    const [whole, part = ''] = amount.split('.');
    const value = BigInt(whole) * 100n + BigInt(part.padEnd(2, '0'));
    cents.set(currency ?? '', (cents.get(currency ?? '') ?? 0n) + value);
  }
  return [...cents]
    .map(([currency, sum]) => {
      const amount = `${sum / 100n}.${String(sum % 100n).padStart(2, '0')}`;
      return ` · ${money({ amount, currency })}`;
    })
    .join('');
}
