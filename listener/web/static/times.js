/** Word times for people: how old something is, and when exactly it was. */

import { h } from './dom.js';

const CLOCK = new Intl.DateTimeFormat(undefined, {
  day: 'numeric',
  month: 'short',
  year: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  timeZoneName: 'short',
});
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' });
const AGES_MS = 1000;
// Less is not told apart from the way of an answer, whose `Date` is in whole seconds.
const WRONG_MS = 5000;
// How far this device's clock, which may be wrong by a day, is behind the listener's.
let behindMs = 0;

/** Word a time span: `12 s`, `4 min`, `3 h`, `2 d`. */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** Return the present time (ms), also where this device's clock is wrong. */
export function present() {
  return Date.now() + behindMs;
}

/** Set the clock by the header `Date` of an answer that took so long. */
export function setClock(date, tookMs) {
  const ms = Date.parse(date) - Date.now();
  if (!Number.isNaN(ms) && tookMs < WRONG_MS) behindMs = Math.abs(ms) < WRONG_MS ? 0 : ms;
}

/** Word a time with its day and its zone. */
export function clock(at) {
  return CLOCK.format(new Date(at));
}

/**
 * Show how old a time is, and go on doing so; its title says when it was.
 *
 * While the page is not live, and on paper, it shows when it was: an age would claim to be of now.
 */
export function ago(at) {
  const element = h('time', { datetime: at, title: FULL.format(new Date(at)), class: 'ago' });
  renew(element);
  return element;
}

/** Show a time, with its day and its zone. */
export function moment(at) {
  return h('time', { datetime: at, title: FULL.format(new Date(at)) }, clock(at));
}

/** Show every age on the page anew. */
export function renewAges() {
  document.querySelectorAll('time.ago').forEach(renew);
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
  const { live, paper } = document.body.dataset;
  const isOfNow = live !== 'no' && paper === undefined;
  const text = isOfNow
    ? `${span(present() - Date.parse(element.dateTime))} ago`
    : clock(element.dateTime);
  if (element.textContent !== text) element.textContent = text;
}

setInterval(renewAges, AGES_MS);
