/** Read the metrics of the listener, and work out what happened between two readings. */

/** Read a text in the OpenMetrics format: a map from `name{labels}` to numbers. */
export function parseMetrics(text) {
  const found = new Map();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const end = line.indexOf(' ', line.lastIndexOf('}') + 1);
    found.set(line.slice(0, end), Number(line.slice(end + 1).split(' ')[0]));
  }
  return found;
}

/** Return a value without labels of its own, whichever node it is from. */
export function reading(metrics, name) {
  for (const [key, found] of metrics) {
    if (key === name || key.startsWith(`${name}{`)) return found;
  }
  return undefined;
}

/** Return the id of the node that was read; undefined where there is only one. */
export function nodeOf(metrics) {
  for (const key of metrics.keys()) {
    if (key.startsWith('listener_node_info{')) return /node="([^"]+)"/.exec(key)?.[1];
  }
  return undefined;
}

/** Add up a counter over all of its labels. */
export function total(metrics, name) {
  let sum = 0;
  for (const [key, value] of metrics) if (key === name || key.startsWith(`${name}{`)) sum += value;
  return sum;
}

/** Return a histogram's buckets as `[upper bound in seconds, count up to there]`. */
export function buckets(metrics, name) {
  const start = `${name}_bucket{`;
  const found = [];
  for (const [key, count] of metrics) {
    if (!key.startsWith(start)) continue;
    const bound = /le="([^"]+)"/.exec(key)[1];
    found.push([bound === '+Inf' ? Infinity : Number(bound), count]);
  }
  return found.sort(([one], [other]) => one - other);
}

/** Subtract an older reading of a histogram from a newer one. */
export function between(older, newer) {
  return newer.map(([bound, count], place) => [bound, count - (older[place]?.[1] ?? 0)]);
}

/** Estimate a quantile (0 to 1) in seconds, linear within a bucket; null where nothing happened. */
export function quantile(found, share) {
  const all = found.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  const rank = share * all;
  let [lower, below] = [0, 0];
  for (const [bound, count] of found) {
    if (count >= rank) {
      return bound === Infinity
        ? lower
        : lower + (bound - lower) * ((rank - below) / (count - below || 1));
    }
    [lower, below] = [bound, count];
  }
  return lower;
}
