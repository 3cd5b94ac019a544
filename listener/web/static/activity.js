/** Plot notifications and their latency over time, from the metrics. */

import { at, h, s } from './dom.js';
import { between, buckets, nodeOf, quantile, total } from './metrics.js';
import { clock, present, span } from './times.js';

const POINTS_MAX = 90;
const [WIDTH, HEIGHT, LEFT] = [320, 76, 34];
// A node that was not reached for this long no longer counts.
const NODE_MS = 30_000;
const COUNTER = 'listener_notifications_total';
const SECONDS = 'listener_notify_seconds';

/** Stores what was read, and draws it. */
export class Activity {
  #points = [];
  /** The last reading of each node: a proxy may send each request to another one. */
  #last = new Map();
  #rates = new Map();

  /** Add a reading (of `parseMetrics`) and draw. */
  take(metrics) {
    const now = {
      at: Date.now(),
      count: total(metrics, COUNTER),
      seconds: buckets(metrics, SECONDS),
    };
    const node = nodeOf(metrics);
    const last = this.#last.get(node);
    this.#last.set(node, now);
    // A restarted listener counts from nothing.
    if (last !== undefined && now.count >= last.count) this.#add(node, pointOf(last, now));
    this.#points.splice(0, this.#points.length - POINTS_MAX);
    this.#draw();
  }

  /** Add a point, at the rate of all nodes that answer: each counts its own notifications. */
  #add(node, point) {
    this.#rates.set(node, { rate: point.rate, to: point.to });
    const since = point.to - NODE_MS;
    for (const [other, { to }] of this.#rates) if (to < since) this.#rates.delete(other);
    const rate = [...this.#rates.values()].reduce((sum, one) => sum + one.rate, 0);
    this.#points.push({ ...point, rate });
  }

  /** Show that there is nothing to plot, and why. */
  refuse(text) {
    at('activity').replaceChildren(h('p', { class: 'calm' }, text));
  }

  #draw() {
    const points = this.#points;
    if (points.length === 0) {
      return this.refuse('Measuring; the first point comes in a few seconds.');
    }
    const perMinute = rateOver(points, 60_000);
    const merged = points.reduce((sum, { seconds }) => add(sum, seconds), []);
    const [p50, p99] = [quantile(merged, 0.5), quantile(merged, 0.99)];
    const nodes = [...this.#rates.keys()].filter(Boolean);
    const since = `since ${clock(points[0].from - Date.now() + present())}`;
    const figure = (value, name) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
    at('activity').replaceChildren(
      h(
        'dl',
        { class: 'figures' },
        figure(perMinute.toLocaleString(), 'in the last minute'),
        figure(inMs(p50), 'median'),
        figure(inMs(p99), '99th percentile'),
      ),
      nodes.length ? h('p', { class: 'plot-title' }, `those that ${nodes.join(', ')} took`) : '',
      h('p', { class: 'plot-title' }, h('b', {}, 'a second'), since),
      bars(points),
      h(
        'p',
        { class: 'plot-title' },
        h('b', {}, 'until acknowledged'),
        h(
          'span',
          {},
          h('span', { class: 'is-p50' }, '— median'),
          ' ',
          h('span', { class: 'is-p99' }, '- - 99 %'),
        ),
      ),
      lines(points),
    );
  }
}

function pointOf(last, now) {
  const seconds = between(last.seconds, now.seconds);
  const rate = (now.count - last.count) / Math.max(0.001, (now.at - last.at) / 1000);
  return {
    from: last.at,
    to: now.at,
    count: now.count - last.count,
    rate,
    seconds,
    p50: quantile(seconds, 0.5),
    p99: quantile(seconds, 0.99),
  };
}

function rateOver(points, ms) {
  const since = Date.now() - ms;
  return points.filter(({ to }) => to >= since).reduce((sum, { count }) => sum + count, 0);
}

function add(sum, more) {
  return more.map(([bound, count], place) => [bound, count + (sum[place]?.[1] ?? 0)]);
}

function inMs(seconds) {
  if (seconds === null) return '–';
  const ms = seconds * 1000;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** Round up to 1, 2 or 5 times a power of ten, so that an axis has a plain end. */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

function frame(label, top, points, ...marks) {
  const y = (share) => HEIGHT - share * (HEIGHT - 8);
  const grid = [0, 0.5, 1].map((share) =>
    s('line', { x1: LEFT, x2: WIDTH, y1: y(share), y2: y(share), class: 'grid' }),
  );
  const texts = [
    s('text', { x: LEFT - 6, y: y(1) + 4, 'text-anchor': 'end' }, top),
    s('text', { x: LEFT - 6, y: HEIGHT, 'text-anchor': 'end' }, '0'),
    s('text', { x: LEFT, y: HEIGHT + 14 }, `${span(Date.now() - points[0].from)} ago`),
    s('text', { x: WIDTH, y: HEIGHT + 14, 'text-anchor': 'end' }, 'now'),
  ];
  return s(
    'svg',
    { viewBox: `0 0 ${WIDTH} ${HEIGHT + 18}`, class: 'plot', role: 'img', 'aria-label': label },
    ...grid,
    ...marks,
    ...texts,
  );
}

function placeOf(points) {
  const [from, to] = [points[0].from, points.at(-1).to];
  return (time) => LEFT + ((time - from) / Math.max(1, to - from)) * (WIDTH - LEFT);
}

function bars(points) {
  const most = ceiling(Math.max(...points.map(({ rate }) => rate)));
  const x = placeOf(points);
  const marks = points.map(({ from, to, rate }) => {
    const height = (rate / most) * (HEIGHT - 8);
    const width = Math.min(14, Math.max(1, x(to) - x(from) - 1));
    return s('rect', { x: x(to) - width, y: HEIGHT - height, width, height, class: 'bar-mark' });
  });
  const now = points.at(-1).rate;
  return frame(
    `Notifications a second; ${now.toFixed(1)} now, at most ${most}.`,
    most.toLocaleString(),
    points,
    ...marks,
  );
}

function lines(points) {
  const known = points.filter(({ p99 }) => p99 !== null);
  const most = ceiling(Math.max(0.001, ...known.map(({ p99 }) => p99)));
  const x = placeOf(points);
  const line = (name) => {
    const path = points.map((point, place) => {
      if (point[name] === null) return '';
      const y = HEIGHT - (point[name] / most) * (HEIGHT - 8);
      const isNext = place > 0 && points[place - 1][name] !== null;
      // A lone point is drawn as a dot: a line of no length with round ends.
      return `${isNext ? 'L' : `M${x(point.to)} ${y}L`}${x(point.to)} ${y}`;
    });
    return s('path', { d: path.join(''), class: name });
  };
  const last = known.at(-1);
  const label = last
    ? `Time until acknowledged; median ${inMs(last.p50)}, 99th percentile ${inMs(last.p99)} at last.`
    : 'Time until acknowledged; nothing yet.';
  return frame(label, inMs(most), points, line('p99'), line('p50'));
}
