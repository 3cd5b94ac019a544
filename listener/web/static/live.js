/** Show whether the page is live, since when it is not, and let nothing on it claim otherwise. */

import { at, say } from './dom.js';
import { clock, present, renewAges, span } from './times.js';

const TITLE = document.title;

/** Return whether what the page shows is up to date. */
export function isLive() {
  return document.body.dataset.live === 'yes';
}

/** Shows the status that the client reports on each change and once a second. */
export class Live {
  #since = present();
  #isLive = false;
  #wasLive = false;
  #onChange;

  /**
   * Call `onChange(isLive)` when the page becomes live, and when it is so no longer.
   *
   * @param {(isLive: boolean) => unknown} [onChange]
   */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  show({ state, transport, ageMs, why }) {
    const isNow = state === 'live';
    const isChanged = isNow !== this.#isLive;
    if (isChanged) this.#since = present() - (isNow ? 0 : (ageMs ?? 0));
    this.#isLive = isNow;
    this.#wasLive ||= isNow;
    document.body.dataset.live = isNow ? 'yes' : this.#wasLive ? 'no' : 'not-yet';
    document.title = isNow || !this.#wasLive ? TITLE : `Not live · ${TITLE}`;
    say(at('live'), isNow ? 'Live' : this.#wasLive ? 'Not live' : 'Connecting …');
    at('live').title = transport === 'long-poll' ? 'By long-poll: WebSocket is blocked here.' : '';
    // Not read out to screen readers, because it changes every second.
    say(at('age'), isNow && ageMs !== null ? `last word ${span(ageMs)} ago` : '');
    say(at('stale'), isNow || !this.#wasLive ? '' : this.#staleness(why));
    at('stale').hidden = at('stale').textContent === '';
    guardButtons();
    if (!isChanged) return;
    renewAges();
    this.#onChange?.(isNow);
  }

  /** Show nothing: nobody is logged in. */
  end() {
    delete document.body.dataset.live;
    document.title = TITLE;
    at('stale').hidden = true;
  }

  #staleness(why) {
    const reason = why ? ` (${why})` : '';
    return `Not live since ${clock(this.#since)}${reason}. What you see is from then; it keeps trying to reconnect.`;
  }
}

/** Say when the paper was printed, and no ages: on paper they would be of now for ever. */
function preparePaper() {
  document.body.dataset.paper = 'yes';
  say(at('printed'), `Printed ${clock(present())}.`);
  renewAges();
}

function endPaper() {
  delete document.body.dataset.paper;
  renewAges();
}

addEventListener('beforeprint', preparePaper);
addEventListener('afterprint', endPaper);

/** @returns {NodeListOf<HTMLButtonElement>} The buttons that do something at the listener. */
function actingButtons() {
  return document.querySelectorAll('button[data-acts]');
}

/** Disable the buttons that do something at the listener while it cannot be reached. */
function guardButtons() {
  const isOff = !isLive();
  for (const button of actingButtons()) {
    if (isOff && !button.disabled) {
      button.dataset.off = 'yes';
      button.disabled = true;
    } else if (!isOff && button.dataset.off === 'yes') {
      delete button.dataset.off;
      button.disabled = false;
    }
  }
}
