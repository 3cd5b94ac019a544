/** Word times for people: how old something is, and when exactly it was. */

import { h } from './dom.js';

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' });
const AGES_MS = 1000;

/** Word a time span: `12 s`, `4 min`, `3 h`, `2 d`. */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** Word the time of day, with the day where it is not today's. */
export function clock(at) {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? CLOCK.format(date) : `${DAY.format(date)}, ${CLOCK.format(date)}`;
}

/** Show how old a time is, and go on doing so; its title says when it was. */
export function ago(at) {
  const element = h('time', { datetime: at, title: FULL.format(new Date(at)), class: 'ago' });
  renew(element);
  return element;
}

/** Show a time of day; its title says the day and the zone as well. */
export function moment(at) {
  return h('time', { datetime: at, title: FULL.format(new Date(at)) }, clock(at));
}

/** Do some work now and every so many seconds, but not while nobody looks. */
export function every(seconds, work) {
  let timer;
  let isEnded = false;
  const turn = async () => {
    clearTimeout(timer);
    if (document.visibilityState === 'visible') await work();
    if (!isEnded) timer = setTimeout(turn, seconds * 1000);
  };
  const onVisible = () => document.visibilityState === 'visible' && turn();
  document.addEventListener('visibilitychange', onVisible);
  turn();
  return () => {
    isEnded = true;
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', onVisible);
  };
}

function renew(element) {
  const text = `${span(Date.now() - Date.parse(element.dateTime))} ago`;
  if (element.textContent !== text) element.textContent = text;
}

setInterval(() => document.querySelectorAll('time.ago').forEach(renew), AGES_MS);
