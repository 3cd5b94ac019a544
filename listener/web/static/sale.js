/** Show the sale in hand: what became of it, in letters to be read from afar, and what to do. */

import { at, h, say } from './dom.js';
import { codePicture } from './code.js';
import { CANCELS, icon, money, shown, wordOf } from './statuses.js';
import { ago } from './times.js';

const SAYS = {
  created: 'Waiting for the customer.',
  pending: 'The customer is about to pay.',
  paid: 'Hand over the goods.',
  failed: 'The payment did not go through. Start another sale.',
  cancelled: 'It can no longer be paid.',
  refunded: 'The customer gets the money back.',
  conflict: 'Pockyt said both paid and cancelled. Keep the goods; head office looks into it.',
  unknown: 'The outcome is not known yet. Keep the goods; Pockyt is being asked.',
  cancelling: 'Waiting for Pockyt’s answer. Keep the goods.',
  unresolved:
    'No answer for a minute. Keep the goods, and make sure that the customer does not pay twice; Pockyt is asked again.',
};
const EVIDENCE = {
  signature: 'Pockyt notified',
  answer: 'Pockyt answered',
  query: 'Pockyt was asked',
};
/** A refusal in a cashier's words; others are said in the listener's. */
const REFUSALS = {
  'already-paid':
    'The customer has paid, so nothing was cancelled. Hand over the goods, or give the money back.',
  'may-not-refund': 'This till may not give money back: its key was made without --may-refund.',
};
const PAYABLE = new Set(['created', 'pending', 'unknown']);

let drawn = {};

/**
 * Show a sale, `{transaction, code, steps, refusal}`, or that there is none.
 *
 * The refusal of its last request is kept with it: an event of the same moment would draw it away.
 */
export function showSale(sale, { api, onCancel, onPay }) {
  if (sale === undefined) return showNothing();
  const { transaction, code, steps, refusal } = sale;
  const { name, word } = standingOf(sale);
  const sign = `${transaction.transactionNo} ${transaction.stateVersion} ${name} ${steps.length} ${code} ${refusal?.message}`;
  if (drawn.sign === sign) return;
  const isOpen = PAYABLE.has(transaction.status);
  const isCancelling = name === 'cancelling' || name === 'unresolved';
  const verdict = verdictFor(transaction.transactionNo);
  verdict.className = `verdict ${name}`;
  verdict.replaceChildren(
    icon(name),
    h('p', { class: 'word' }, word),
    h('p', { class: 'says' }, SAYS[name] ?? ''),
  );
  const heard = stepsOf(steps);
  const rest =
    isOpen || isCancelling || refusal
      ? workFor(sale, heard, { api, isOpen, isCancelling, onCancel, onPay })
      : heard;
  const typed = drawn.number === transaction.transactionNo ? at('barcode') : null;
  const hadFocus = typed !== null && typed === document.activeElement;
  at('current').replaceChildren(verdict, priceOf(transaction), rest);
  const field = at('barcode');
  if (typed && field) field.value = typed.value;
  if (hadFocus) field?.focus({ preventScroll: true });
  drawn = { sign, verdict, number: transaction.transactionNo };
}

/** Return what a sale shows; how its cancel stands is known from the API or from the last event. */
export function standingOf({ transaction, steps }) {
  const last = steps.at(-1)?.type;
  if (PAYABLE.has(transaction.status)) {
    const name = last?.replace('transaction.', '');
    if (name in CANCELS) return { name, word: wordOf(name) };
  }
  return shown(transaction);
}

function showNothing() {
  drawn = {};
  at('current').replaceChildren(
    h(
      'p',
      { class: 'calm nothing' },
      'Start a sale, or choose one of the last. Its progress appears here.',
    ),
  );
}

/** Keep the element that is read out, so that a change of the same sale is heard. */
function verdictFor(transactionNo) {
  return drawn.number === transactionNo ? drawn.verdict : h('div', { role: 'status' });
}

function priceOf(transaction) {
  return h(
    'p',
    { class: 'price' },
    h('b', {}, money(transaction)),
    h(
      'span',
      {},
      transaction.reference ?? '',
      h('br'),
      h('span', { class: 'mono' }, transaction.transactionNo),
    ),
  );
}

function workFor(sale, heard, { api, isOpen, isCancelling, onCancel, onPay }) {
  const { transaction, code, refusal } = sale;
  const error = h('p', { class: 'error', role: 'alert' }, wordsOf(refusal));
  const cancel = h(
    'button',
    {
      type: 'button',
      class: 'danger big',
      id: 'cancel',
      'data-acts': true,
      onclick: () => run(onCancel),
    },
    isCancelling ? 'Ask again to cancel' : 'Cancel the sale',
  );

  async function run(work, ...given) {
    cancel.disabled = true;
    say(error, '');
    await work(...given);
    say(error, wordsOf(sale.refusal));
    cancel.disabled = false;
  }

  const isPayable = isOpen && !isCancelling;
  const picture =
    code && isPayable ? codePicture(api, code, `Code to pay ${money(transaction)}`) : undefined;
  return h(
    'div',
    { class: 'work' },
    picture &&
      h('div', { class: 'code' }, picture, h('p', {}, 'The customer scans this with the wallet.')),
    h(
      'div',
      { class: 'side-work' },
      !code && isPayable && scanForm((barcode) => run(onPay, barcode)),
      h(
        'div',
        { class: 'actions' },
        (isOpen || isCancelling) && cancel,
        refusal?.code === 'already-paid' && refundButton(() => run(onCancel, true)),
      ),
      error,
      heard,
    ),
  );
}

function wordsOf(refusal) {
  return REFUSALS[refusal?.code] ?? refusal?.message ?? '';
}

function refundButton(onclick) {
  return h(
    'button',
    { type: 'button', class: 'big', 'data-acts': true, onclick },
    'Cancel and give the money back',
  );
}

function scanForm(onScan) {
  const field = h('input', {
    id: 'barcode',
    required: true,
    inputmode: 'numeric',
    maxlength: 64,
    autocomplete: 'off',
  });
  const charge = h('button', { class: 'main', 'data-acts': true }, 'Charge');
  const onsubmit = async (event) => {
    event.preventDefault();
    charge.disabled = true;
    await onScan(field.value.trim());
    charge.disabled = false;
    // The next code is another try, not the rest of this one.
    field.select();
  };
  return h(
    'form',
    { class: 'scan', onsubmit },
    h('label', { for: 'barcode' }, 'The customer’s code'),
    h('div', {}, field, charge),
  );
}

function stepsOf(steps) {
  const draw = ({ type, time, evidence }) => {
    const name = type.replace('transaction.', '');
    // That a cancel was asked for, or has no answer, is nothing that Pockyt said.
    const source = name in CANCELS ? undefined : EVIDENCE[evidence];
    return h(
      'li',
      {},
      h('span', {}, [wordOf(name), source].filter(Boolean).join(' · ')),
      ago(time),
    );
  };
  return h('ol', { class: 'steps', 'aria-label': 'What was heard' }, ...steps.map(draw));
}
