/** Choose what the list shows: a status, a store, a day. The address keeps the store and the day. */

import { at, h } from './dom.js';
import { STATUSES, icon } from './statuses.js';

const TYPING_MS = 250;
// Each as `<merchantNo>/<storeNo>`.
const stores = new Set();

/** Draw the filters; `onChange()` says that another one was chosen. */
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
        onchange: onChange,
      }),
      ...content,
    );
  at('filters').append(
    chip('', 'All'),
    ...Object.entries(STATUSES).map(([status, { word }]) => chip(status, icon(status), word)),
  );
  const given = new URLSearchParams(location.search);
  for (const id of ['store', 'day']) at(id).value = given.get(id) ?? '';
  const choose = () => {
    keepInAddress(chosen());
    onChange();
  };
  at('day').addEventListener('change', choose);
  onTyped('store', choose);
  keepInAddress(chosen());
}

/** Call `onPause()` a moment after the last key in a field. */
export function onTyped(id, onPause) {
  let timer;
  at(id).addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(onPause, TYPING_MS);
  });
}

/** Return what is chosen, each '' for all; the store as `<storeNo>` or `<merchantNo>/<storeNo>`. */
export function chosen() {
  const status = at('filters').querySelector(':checked')?.value ?? '';
  return { status, store: at('store').value.trim(), day: at('day').value };
}

/** Write a filter as the API's query; a day is one of this device's zone. */
export function queryOf({ status, store, day }) {
  const [storeNo, merchantNo] = store.split('/').reverse();
  const [since, until] = day ? [beginOf(day), beginOf(day, 1)] : [];
  return { status, merchantNo, storeNo, since, until };
}

/** Return whether a transaction is one of those that a filter shows. */
export function shows(filter, row) {
  const { status, merchantNo, storeNo, since, until } = queryOf(filter);
  return (
    (!status || row.status === status) &&
    (!merchantNo || row.merchantNo === merchantNo) &&
    (!storeNo || (row.storeNo ?? '-') === storeNo) &&
    (!since || (row.createdAt >= since && row.createdAt < until))
  );
}

/** Word what was not found under a filter, as the beginning of a sentence. */
export function noneOf({ status, store, day }) {
  const which = [
    status && 'with this status',
    store && 'at this store',
    day && 'that began on this day',
  ];
  return ['No transaction', ...which].filter(Boolean).join(' ');
}

/** Offer the stores of transactions to whoever chooses one. */
export function offerStores(rows) {
  const before = stores.size;
  for (const { merchantNo, storeNo } of rows) stores.add(`${merchantNo}/${storeNo ?? '-'}`);
  if (stores.size === before) return;
  const names = [...stores].sort().map((name) => name.split('/'));
  const isOfOne = names.every(([merchantNo]) => merchantNo === names[0][0]);
  at('stores').replaceChildren(
    ...names.map(([merchantNo, storeNo]) =>
      h(
        'option',
        { value: isOfOne ? storeNo : `${merchantNo}/${storeNo}` },
        storeNo === '-' && 'no store',
      ),
    ),
  );
}

function beginOf(day, later = 0) {
  const midnight = new Date(`${day}T00:00`);
  midnight.setDate(midnight.getDate() + later);
  return midnight.toISOString();
}

function keepInAddress({ store, day }) {
  const given = Object.entries({ store, day }).filter(([, value]) => value);
  const search = given.length > 0 ? `?${new URLSearchParams(given)}` : '';
  history.replaceState(null, '', `${location.pathname}${search}${location.hash}`);
  at('day').classList.toggle('is-empty', !day);
}
