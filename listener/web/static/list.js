/** Show the list of transactions: search, rows. */

import { keyOf } from './book.js';
import { at, h, reconcile, say } from './dom.js';
import { noneOf, onTyped } from './filters.js';
import { badge, money } from './statuses.js';
import { ago } from './times.js';

const ROWS_MAX = 500;

/** Call `onSearch(text)` with the text to search, a moment after the last key. */
export function makeSearch(onSearch) {
  onTyped('search', () => onSearch(at('search').value.trim()));
}

/** Return the rows whose reference or number contains a text. */
export function matching(rows, text) {
  const wanted = text.toLowerCase();
  return rows.filter(({ reference, transactionNo }) =>
    [reference, transactionNo].some((one) => one?.toLowerCase().includes(wanted)),
  );
}

/**
 * Show the rows of a filter. `marksNew`: those that were not there before catch the eye for a moment.
 * `search` is what is looked for, `{text, found}`; `found` is undefined until the listener has
 * answered. `isReading`: it has not answered yet. `problem`: why the list was not read.
 */
export function showList(rows, { filter, hrefOf, marksNew, hasOlder, isReading, problem, search }) {
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
    search ? nothingFound(search, filter) : problem ? '' : nothingThere(filter, isReading),
  );
  say(at('transactions-said'), search ? resultOf(search, rows.length) : (problem ?? ''));
}

function nothingThere(filter, isReading) {
  return isReading ? 'Reading …' : `${noneOf(filter)}${filter.day ? '' : ' yet'}.`;
}

function nothingFound({ found }, filter) {
  if (found === undefined) return 'Searching …';
  return found.problem ?? `${noneOf(filter)} has this in its reference or number.`;
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
