/** Show the list of transactions: filters, search, rows. */

import { keyOf } from './book.js';
import { at, h, reconcile, say } from './dom.js';
import { STATUSES, badge, icon, money } from './statuses.js';
import { ago } from './times.js';

const ROWS_MAX = 500;
const TYPING_MS = 250;

/** Draw the filters; `onChange(status)` gets '' for all. */
export function makeFilters(onChange) {
  const chip = (value, ...content) =>
    h(
      'label',
      {},
      h('input', {
        type: 'radio',
        name: 'status',
        value,
        checked: value === '',
        onchange: () => onChange(value),
      }),
      ...content,
    );
  at('filters').append(
    chip('', 'All'),
    ...Object.entries(STATUSES).map(([status, { word }]) => chip(status, icon(status), word)),
  );
}

/** Call `onSearch(text)` with the text to search, a moment after the last key. */
export function makeSearch(onSearch) {
  let timer;
  at('search').addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => onSearch(at('search').value.trim()), TYPING_MS);
  });
}

/** Return the rows with a status ('' for all) whose reference or number contains a text. */
export function matching(rows, text, chosen) {
  const wanted = text.toLowerCase();
  return rows.filter(
    ({ status, reference, transactionNo }) =>
      (!chosen || status === chosen) &&
      [reference, transactionNo].some((one) => one?.toLowerCase().includes(wanted)),
  );
}

/**
 * Show rows. `marksNew`: those that were not there before catch the eye for a moment. `search` is
 * what is looked for, `{text, found, chosen}`; `found` is undefined until the listener has answered,
 * `chosen` the status that it must have, '' for any. `problem`: why the list was not read.
 */
export function showList(rows, { hrefOf, marksNew, hasOlder, problem, search }) {
  reconcile(at('rows'), rows.slice(0, ROWS_MAX), {
    keyOf,
    signOf: ({ stateVersion, updatedAt, held, cancel }) =>
      `${stateVersion} ${updatedAt} ${held} ${cancel?.state}`,
    draw: (row, isNew) => drawRow(row, hrefOf, marksNew && isNew),
  });
  at('older').hidden = !hasOlder || Boolean(search) || rows.length >= ROWS_MAX;
  at('none').hidden = rows.length > 0;
  say(
    at('none'),
    search ? nothingFound(search) : problem ? '' : 'No transaction with this status yet.',
  );
  say(at('transactions-said'), search ? resultOf(search, rows.length) : (problem ?? ''));
}

function nothingFound({ found, chosen }) {
  if (found === undefined) return 'Searching …';
  const which = chosen ? 'No transaction with this status' : 'No transaction';
  return found.problem ?? `${which} has this in its reference or number.`;
}

function resultOf({ found }, count) {
  if (found === undefined) return 'Searching …';
  if (found.problem) return found.problem;
  return found.hasMore ? `The newest ${count}; there are more: type more of it.` : `${count} found`;
}

function drawRow(row, hrefOf, isFresh) {
  const cell = (kind, ...content) => h('td', { role: 'cell', class: kind }, ...content);
  const name = row.reference ?? row.transactionNo;
  return h(
    'tr',
    { role: 'row', class: isFresh ? 'is-new' : undefined },
    cell('', badge(row)),
    cell('number amount', money(row)),
    cell('name', h('a', { href: hrefOf(row), 'data-focus': 'story' }, name)),
    cell('no soft mono', row.transactionNo),
    cell('place soft', [row.storeNo ?? 'no store', row.terminal].filter(Boolean).join(' · ')),
    cell('word number soft', ago(row.updatedAt)),
  );
}
