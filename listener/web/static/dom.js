/** Make and change elements. Text is always text: nothing here reads HTML. */

const SVG = 'http://www.w3.org/2000/svg';

/** Make an element: `h('a', { href, class: 'row', onclick }, 'text', child)`. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an element of an SVG picture. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * Return the element of the page with this id.
 *
 * @returns {any} Its kind is what the page says.
 */
export function at(id) {
  return document.getElementById(id);
}

/** Set a text only when it differs, so that screen readers do not repeat it. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Bring a list into line with what it should show, keeping the rows that stay.
 *
 * `keyOf(item)` names a row, `signOf(item)` changes with what it shows, `draw(item)` makes it. Where
 * the focus was in a row that is drawn anew, it goes to the element with the same `data-focus`;
 * what was unfolded stays so.
 */
export function reconcile(list, items, { keyOf, signOf, draw }) {
  const wanted = new Set(items.map(keyOf));
  const rows = new Map();
  for (const row of [...list.children]) {
    if (wanted.has(row.dataset.key)) rows.set(row.dataset.key, row);
    else row.remove();
  }
  const focus = document.activeElement?.getAttribute('data-focus');
  let place = list.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const sign = signOf(item);
    let row = rows.get(key);
    if (row?.dataset.sign !== sign) {
      const drawn = draw(item, row === undefined);
      Object.assign(drawn.dataset, { key, sign });
      const hadFocus = row?.contains(document.activeElement);
      if (row?.querySelector('details[open]')) {
        drawn.querySelector('details')?.setAttribute('open', '');
      }
      if (row === place) place = drawn;
      row?.replaceWith(drawn);
      row = drawn;
      if (hadFocus) row.querySelector(`[data-focus="${focus}"]`)?.focus();
    }
    if (row === place) place = place.nextElementSibling;
    else list.insertBefore(row, place);
  }
}

/**
 * Remember where the focus is.
 *
 * @returns {() => void} It brings the focus back, even into a row of a list that was drawn anew.
 */
export function keepFocus() {
  const element = document.activeElement;
  const row = element?.closest('[data-key]');
  const [list, key] = [row?.parentElement, row?.getAttribute('data-key')];
  const name = element?.getAttribute('data-focus');
  return () => {
    if (element?.isConnected) return;
    const now = [...(list?.children ?? [])].find((one) => one.getAttribute('data-key') === key);
    (now?.querySelector(`[data-focus="${name}"]`) ?? at('main')).focus();
  };
}

function fill(element, attributes = {}, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  // What a condition left out is false, undefined or null.
  element.append(...children.flat().filter((child) => child));
  return element;
}
