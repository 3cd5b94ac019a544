/** Follow every transaction that changes: over the websocket, or the entries if the key may not. */

import { pollEntries } from './poll.js';
import { SNAPSHOT, follow } from './pos-client.js';

/**
 * Start to hear. `onChange(rows)` gets `{merchantNo, transactionNo, …}` of what changed, with the
 * event's data where there is some; `onReset()` says that what was shown is to be forgotten.
 *
 * Returns what ends it.
 */
export function hear({ key, role, api, onChange, onReset, onStatus, onRefused }) {
  if (role !== 'admin') {
    const onEntries = (entries) =>
      onChange(
        entries
          .filter((entry) => entry.transactionNo)
          .map(({ merchantNo, transactionNo }) => ({ merchantNo, transactionNo })),
      );
    return pollEntries(api, { onEntries, onReset, onStatus, onRefused });
  }
  // A dashboard only looks: it acknowledges nothing, so no till's cancellation counts as seen.
  const follower = follow(location.origin, { key, acks: false, onStatus, onResync: onReset });
  listen(follower, onChange).catch(onRefused);
  return () => follower.close();
}

async function listen(follower, onChange) {
  for await (const { type, time, data } of follower) {
    if (type !== SNAPSHOT) onChange([{ ...data, type, time }]);
  }
}
