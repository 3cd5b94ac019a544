/** Show what needs somebody: open cancels, conflicts and doubts, each with what to do. */

import { at, h, reconcile, say } from './dom.js';
import { icon, money } from './statuses.js';
import { ago } from './times.js';

// In the order of their urgency.
const CASES = [
  {
    name: 'conflict',
    tone: 'bad',
    applies: ({ status }) => status === 'conflict',
    title: 'Paid and cancelled',
    todo: 'Keep the goods and give no money back yet. Ask Pockyt; if it cannot tell, look the number up in Pockyt’s portal and record a decision.',
    mayDecide: true,
  },
  {
    name: 'unresolved',
    tone: 'bad',
    applies: ({ cancel }) => cancel?.state === 'unresolved',
    title: 'Cancel without an answer',
    todo: 'The customer may still be able to pay. It is asked about for 48 hours by itself; ask now, or look the number up in Pockyt’s portal and record a decision.',
    mayDecide: true,
  },
  {
    name: 'held',
    tone: 'warn',
    applies: ({ held }) => held,
    title: 'A notification is not believed',
    todo: 'It is signed, yet differs from the sale or reads ambiguously. Pockyt is asked by itself; its story says why.',
    mayDecide: true,
  },
  {
    name: 'unknown',
    tone: 'warn',
    applies: ({ status }) => status === 'unknown',
    title: 'Nobody can tell what became of it',
    todo: 'Pockyt is asked by itself. If it stays so, look the number up in Pockyt’s portal and record a decision.',
    mayDecide: true,
  },
  {
    name: 'cancelling',
    tone: 'calm',
    applies: ({ cancel }) => cancel?.state === 'requested',
    title: 'Cancel under way',
    todo: 'Pockyt has been told and has not answered yet. Nothing to do; after 60 seconds it is raised here.',
    mayDecide: false,
  },
];
// More than these nobody reads; the count tells of all.
const CARDS_MAX = 50;
const UNSEEN = {
  name: 'unseen',
  tone: 'warn',
  title: 'No till has seen this cancellation',
  todo: 'Call the shop and tell them it is cancelled; then see whether its till is online.',
  mayDecide: false,
};

/** Tell what a transaction needs; undefined where it needs nobody. */
export function caseOf(transaction) {
  return CASES.find(({ applies }) => applies(transaction));
}

/** Show the cards. `unseen` are the cancellations that no till acknowledged in time. */
export function showAttention({ transactions, unseen, canAct, onAsk, onDecide, hrefOf }) {
  const items = transactions
    .map((transaction) => ({ transaction, found: caseOf(transaction) }))
    .filter(({ found }) => found !== undefined)
    .concat(unseen.map((transaction) => ({ transaction, found: UNSEEN })));
  const rank = ({ found }) => (found === UNSEEN ? 1.5 : CASES.indexOf(found));
  items.sort((one, other) => rank(one) - rank(other));
  reconcile(at('attention'), items.slice(0, CARDS_MAX), {
    keyOf: ({ transaction, found }) =>
      `${found.name} ${transaction.merchantNo}/${transaction.transactionNo}`,
    signOf: ({ transaction }) => `${transaction.stateVersion} ${canAct}`,
    draw: (item) => card(item, { canAct, onAsk, onDecide, hrefOf }),
  });
  say(at('attention-count'), items.length ? String(items.length) : '');
  at('attention-none').hidden = items.length > 0;
}

function card({ transaction, found }, { canAct, onAsk, onDecide, hrefOf }) {
  const outcome = h('p', { class: 'outcome', role: 'status' });
  const isCancel = found.name === 'cancelling' || found.name === 'unresolved';
  const since = isCancel
    ? ['asked for ', ago(transaction.cancel.requestedAt)]
    : ['last word ', ago(transaction.updatedAt)];
  const ask = async ({ currentTarget: button }) => {
    button.disabled = true;
    say(outcome, 'Asking Pockyt …');
    say(outcome, await onAsk(transaction));
    button.disabled = false;
  };
  const name = transaction.reference ?? transaction.transactionNo;
  return h(
    'li',
    { class: `tone-${found.tone}` },
    icon(found.name),
    h('h3', {}, found.title, h('span', { class: 'amount' }, ` · ${money(transaction)}`)),
    h(
      'div',
      { class: 'body' },
      h(
        'p',
        { class: 'where' },
        h(
          'a',
          { href: hrefOf(transaction), 'data-focus': 'story', 'aria-label': `Story of ${name}` },
          name,
        ),
        ' · ',
        place(transaction),
        ' · ',
        ...since,
      ),
      h('p', { class: 'todo' }, found.todo),
    ),
    h(
      'div',
      { class: 'buttons' },
      canAct &&
        found !== UNSEEN &&
        h('button', { type: 'button', 'data-focus': 'ask', onclick: ask }, 'Ask Pockyt now'),
      canAct &&
        found.mayDecide &&
        h(
          'button',
          { type: 'button', 'data-focus': 'decide', onclick: () => onDecide(transaction) },
          'Decide …',
        ),
    ),
    outcome,
  );
}

function place({ storeNo, terminal }) {
  return [storeNo ? `store ${storeNo}` : 'no store', terminal].filter(Boolean).join(', ');
}
