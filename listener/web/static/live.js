/** Say whether what the page shows is live, since when it is not, and how old the last word is. */

import { at, say } from './dom.js';
import { clock, span } from './times.js';

const TITLE = document.title;

/** Show the status that the client tells on each change and once a second. */
export class Live {
  #since = Date.now();
  #isLive = false;
  #wasLive = false;
  #onLive;

  constructor(onLive = () => {}) {
    this.#onLive = onLive;
  }

  show({ state, transport, ageMs }) {
    const isLive = state === 'live';
    if (isLive !== this.#isLive) this.#since = Date.now() - (isLive ? 0 : (ageMs ?? 0));
    const becameLive = isLive && !this.#isLive;
    this.#isLive = isLive;
    this.#wasLive ||= isLive;
    document.body.dataset.live = isLive ? 'yes' : this.#wasLive ? 'no' : 'not-yet';
    document.title = isLive || !this.#wasLive ? TITLE : `Not live · ${TITLE}`;
    say(at('live'), isLive ? 'Live' : this.#wasLive ? 'Not live' : 'Connecting …');
    at('live').title = transport === 'long-poll' ? 'By long-poll: WebSocket is blocked here.' : '';
    // Not a part of what is read out: it changes every second.
    say(at('age'), ageMs === null ? '' : `last word ${span(ageMs)} ago`);
    say(
      at('stale'),
      isLive || !this.#wasLive
        ? ''
        : `Not live since ${clock(this.#since)}. What you see may be out of date; trying again by itself.`,
    );
    at('stale').hidden = at('stale').textContent === '';
    if (becameLive) this.#onLive();
  }

  /** Show nothing: nobody is in. */
  end() {
    delete document.body.dataset.live;
    document.title = TITLE;
    at('stale').hidden = true;
  }
}
