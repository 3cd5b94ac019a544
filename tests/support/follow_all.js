/**
 * Follow a listener through many edges at once, and print what happens as JSON, one line each.
 *
 * The plan comes on stdin: `{"urls": {name: url}, "key", "timing": {…}}`.
 */

import { createInterface } from 'node:readline';
import { follow, StoppedError } from '../../clients/js/pos-client.js';

function tell(name, what) {
  process.stdout.write(`${JSON.stringify({ name, at: Date.now() / 1000, ...what })}\n`);
}

async function followOne(name, url, key, timing) {
  let last = '';
  const onStatus = ({ state, cause, why }) => {
    const now = JSON.stringify({ state, cause, why });
    if (now !== last) tell(name, { state, cause, why });
    last = now;
  };
  try {
    for await (const event of follow(url, { key, acks: false, timing, onStatus })) {
      tell(name, { event: event.data.transactionNo });
    }
  } catch (error) {
    if (!(error instanceof StoppedError)) throw error;
    tell(name, { stopped: error.message });
  }
}

for await (const line of createInterface(process.stdin)) {
  const { urls, key, timing } = JSON.parse(line);
  for (const [name, url] of Object.entries(urls)) void followOne(name, url, key, timing);
}
