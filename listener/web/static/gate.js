/** Ask for a key and keep it for this tab: in sessionStorage, which ends with the tab. */

import { Api, ApiError } from './api.js';
import { at, say } from './dom.js';

// What comes along when a key is copied from a message: blanks, quotes, and what cannot be seen.
const COPIED_ALONG = /[\s"'`‘’“”„«»\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u2069\ufeff]/g;

/** Keep a text for this tab, unless it has no room left: the page works without. */
export function keep(name, text) {
  try {
    sessionStorage.setItem(name, text);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
  }
}

/**
 * Let a person in, and again whenever the key stops being good.
 *
 * `enter(key)` tries a key: it throws what is wrong with it, or starts the page and returns what
 * ends it. Returns `leave(message)`, which forgets the key and shows the gate again.
 */
export function gate(name, enter) {
  const form = at('gate');
  let end = () => {};

  async function tryKey(key) {
    say(at('gate-error'), '');
    form.inert = true;
    try {
      end = await enter(key);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      return refuse(error.message, key, error instanceof ApiError && error.isPassing);
    } finally {
      form.inert = false;
    }
    keep(name, key);
    form.hidden = true;
    document.body.classList.add('entered');
    at('main').focus();
  }

  function refuse(message, key, isPassing) {
    // A listener that is away says nothing about the key.
    if (!isPassing) sessionStorage.removeItem(name);
    form.hidden = false;
    at('gate-key').value = isPassing ? key : '';
    say(at('gate-error'), message);
    at('gate-key').focus();
  }

  function leave(message = '') {
    end();
    end = () => {};
    document.body.classList.remove('entered');
    refuse(message, '', false);
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const key = at('gate-key').value.replace(COPIED_ALONG, '');
    at('gate-key').value = '';
    if (!key) refuse('Enter a key; `listener keys create` makes one.', '', false);
    else if (/^[\w-]+$/.test(key)) tryKey(key);
    else refuse('A key has only letters, digits, - and _: copy it anew.', '', false);
  });
  at('leave').addEventListener('click', () => leave());

  const kept = sessionStorage.getItem(name);
  if (kept) tryKey(kept);
  else refuse('', '', false);
  return leave;
}

/** Return what a key may see; throws if it is not known. */
export async function roleOf(key) {
  const api = new Api(key);
  const may = (path) =>
    api.get(path).then(
      () => true,
      (error) => {
        if (error.status === 403) return false;
        if (error.status === 401) throw new Error('This key is not known here, or it was revoked.');
        throw error;
      },
    );
  if (await may('/metrics')) return 'admin';
  return (await may('/v1/ledger')) ? 'ledger' : 'pos';
}
