/** Word and draw what a transaction has come to, so that it reads without colour as well. */

import { h, s } from './dom.js';

// Each status has a shape of its own: 16 × 16, `fill` shapes are solid, `line` shapes are strokes,
// `mark` strokes lie on top of a solid one.
const CIRCLE = 'M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2Z';
const SQUARE =
  'M4 2.5h8A1.5 1.5 0 0 1 13.5 4v8a1.5 1.5 0 0 1-1.5 1.5H4A1.5 1.5 0 0 1 2.5 12V4A1.5 1.5 0 0 1 4 2.5Z';
const DIAMOND = 'M8 .9 15.1 8 8 15.1.9 8Z';
const SHAPES = {
  created: { line: CIRCLE },
  pending: { line: `${CIRCLE}M8 4.8V8l2.2 1.6` },
  paid: { fill: CIRCLE, mark: 'M5.2 8.2 7.2 10.2 10.9 6' },
  failed: { line: 'M8 2.2 14.4 13.4H1.6ZM8 6.4v3M8 11.2v.4' },
  cancelled: { line: `${SQUARE}M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8` },
  refunded: { line: 'M6 2.6 2.8 5.8 6 9M3 5.8h6.2a3.8 3.8 0 0 1 0 7.6H5.4' },
  conflict: { fill: DIAMOND, mark: 'M8 4.6v4M8 10.9v.3' },
  unknown: { dash: CIRCLE, line: 'M6.5 6.4a1.6 1.6 0 1 1 2.3 1.5c-.6.3-.8.6-.8 1.2M8 10.9v.2' },
  cancelling: { dash: SQUARE, line: 'M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8' },
  unresolved: { fill: SQUARE, mark: 'M8 4.6v4M8 10.9v.3' },
  held: { line: `${CIRCLE}M6.4 5.8v4.4M9.6 5.8v4.4` },
  unseen: {
    line: 'M1.4 8S3.8 3.8 8 3.8 14.6 8 14.6 8 12.2 12.2 8 12.2 1.4 8 1.4 8ZM2.6 13.4 13.4 2.6',
  },
  till: { line: 'M3 2.5h10v6H3ZM1.5 13.5 3 8.5h10l1.5 5ZM6 11h4' },
  query: { line: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 1 0 0-9ZM10.4 10.4l3.4 3.4' },
  answer: { line: 'M2.5 3h11v7.5H8l-3 3v-3H2.5Z' },
  notification: { line: 'M4 11.2V7a4 4 0 0 1 8 0v4.2l1.2 1.3H2.8ZM6.8 14.4h2.4' },
  alarm: { line: 'M8 2.2 14.4 13.4H1.6ZM8 6.4v3M8 11.2v.4' },
  decision: { line: 'M8 2.2a2.6 2.6 0 1 0 0 5.2 2.6 2.6 0 1 0 0-5.2ZM2.8 14a5.2 5.2 0 0 1 10.4 0' },
  yes: { line: 'M3 8.4 6.4 11.8 13 4.6' },
  no: { line: 'M4 4l8 8M12 4l-8 8' },
};

export const STATUSES = {
  created: { word: 'Created', says: 'The sale was started; nobody has paid.' },
  pending: { word: 'Pending', says: 'The customer is about to pay.' },
  paid: { word: 'Paid', says: 'The money has been taken.' },
  failed: { word: 'Failed', says: 'The payment did not go through.' },
  cancelled: { word: 'Cancelled', says: 'It can no longer be paid.' },
  refunded: { word: 'Refunded', says: 'The money has gone back to the customer.' },
  conflict: { word: 'Conflict', says: 'Pockyt said both paid and cancelled.' },
  unknown: { word: 'Unknown', says: 'It is not known yet what became of it.' },
};
// How a cancel stands while it is open: the same words on every page, in every place.
export const CANCELS = {
  cancelling: { word: 'Cancelling …' },
  unresolved: { word: 'No answer' },
};
const HELD = { word: 'Held' };

const OPEN = new Set(['unknown', 'created', 'pending']);

/** Draw an icon; it is decoration, so the word stands beside it. */
export function icon(name) {
  const { fill, line, dash, mark } = SHAPES[name] ?? SHAPES.unknown;
  return s(
    'svg',
    { viewBox: '0 0 16 16', class: 'icon', 'aria-hidden': 'true' },
    fill && s('path', { d: fill, class: 'fill' }),
    dash && s('path', { d: dash, class: 'line', 'stroke-dasharray': '2.2 2' }),
    line && s('path', { d: line, class: 'line' }),
    mark && s('path', { d: mark, class: 'mark' }),
  );
}

/** Return the word for a status, or for how a cancel stands. */
export function wordOf(name) {
  return { ...STATUSES, ...CANCELS, held: HELD }[name]?.word ?? name;
}

/** Return what a transaction shows: its status, or how its cancel stands while that is open. */
export function shown({ status, cancel }) {
  const isOpen = cancel !== null && cancel !== undefined && OPEN.has(status);
  if (isOpen && cancel.state === 'unresolved') {
    return { name: 'unresolved', word: wordOf('unresolved') };
  }
  if (isOpen && cancel.state === 'requested') {
    return { name: 'cancelling', word: wordOf('cancelling') };
  }
  return { name: status, word: wordOf(status) };
}

/** Show a status as icon and word; `as` is what is shown, where more is known than the row tells. */
export function badge(transaction, { held = transaction.held, as = shown(transaction) } = {}) {
  const { name, word } = as;
  return h(
    'span',
    { class: `status ${name}` },
    icon(name),
    h('span', {}, word),
    held &&
      h(
        'span',
        { class: 'held', title: 'A notification is held: signed, but not believed alone.' },
        wordOf('held'),
      ),
  );
}

/** Word an amount; both may be unknown. */
export function money({ amount, currency }) {
  return amount ? `${amount}\u00a0${currency ?? ''}` : '–';
}
