/** Tell a transaction's story: where it stands, who said what, when, on which evidence. */

import { pathOf } from './api.js';
import { keyOf } from './book.js';
import { caseOf } from './attention.js';
import { decisionForm } from './decide.js';
import { at, h, keepFocus, reconcile, say } from './dom.js';
import { STATUSES, badge, icon, money, shown, wordOf } from './statuses.js';
import { moment } from './times.js';

const CALLS = {
  add: 'start the sale',
  prepay: 'charge the customer',
  'create-trans-qrcode': 'make a code',
  cancel: 'cancel',
  refund: 'refund',
  'tran-query': 'tell the status',
};
const HELD = {
  amount_differs: 'its amount is not the sale’s, or not another notification’s',
  currency_differs: 'its currency is not the sale’s, or not another notification’s',
  reference_differs: 'its reference is not the sale’s, or not another notification’s',
  refund_notice: 'it is about money going back, and no payment',
  ambiguous: 'a value holds “&”, so that its signature fits other messages as well',
  not_utf8: 'its text is not UTF-8, and was read as GB18030',
};
const EVIDENCE = {
  notification: 'Evidence: Pockyt’s signature',
  answer: 'Evidence: Pockyt’s answer to our call',
  query: 'Evidence: Pockyt asked directly',
};

/** The drawer that shows one story at a time; `canAct`: whether the key may ask and decide. */
export class Story {
  #api;
  #canAct;
  #onRead;
  #shown;
  #body;
  #bringFocusBack;

  constructor(api, { canAct, onRead, onClose }) {
    this.#api = api;
    this.#canAct = canAct;
    this.#onRead = onRead;
    const dialog = at('story');
    dialog.onclose = () => {
      this.#shown = undefined;
      this.#bringFocusBack();
      onClose();
    };
    dialog.onclick = ({ target, clientX }) => {
      // A click on the backdrop is one on the dialog itself, but beside it.
      if (target === dialog && clientX < dialog.getBoundingClientRect().left) this.close();
    };
  }

  /** Show the story of a transaction; `decides` opens the form of a decision. */
  async open(identity, { decides = false } = {}) {
    const key = keyOf(identity);
    if (this.#shown !== key) {
      this.#shown = key;
      this.#body = undefined;
      at('story').replaceChildren(h('p', { class: 'calm', id: 'story-title' }, 'Reading …'));
    }
    if (!at('story').open) {
      this.#bringFocusBack = keepFocus();
      at('story').showModal();
    }
    await this.refresh(identity);
    if (decides) this.#body?.form?.open();
  }

  close() {
    at('story').close();
  }

  /** Read the story again if it is the one that is shown. */
  async refresh(identity) {
    if (this.#shown !== keyOf(identity)) return;
    try {
      const story = await this.#api.get(pathOf(identity), {
        query: { merchantNo: identity.merchantNo },
      });
      if (this.#shown === keyOf(identity)) this.#show(story);
      this.#onRead(story);
    } catch (error) {
      if (this.#body === undefined) this.#fail(error);
    }
  }

  #fail(error) {
    const close = h('button', { type: 'button', onclick: () => this.close() }, 'Close');
    at('story').replaceChildren(
      h('h2', { id: 'story-title' }, 'No story'),
      h('p', { class: 'error' }, error.message),
      close,
    );
  }

  #show(story) {
    this.#body ??= this.#frame(story);
    const { head, facts, timeline, form } = this.#body;
    form?.saw(story.stateVersion);
    head.replaceChildren(
      h('h2', { id: 'story-title' }, money(story)),
      badge(story),
      h('p', { class: 'says' }, saysOf(story)),
    );
    facts.replaceChildren(...factsOf(story));
    reconcile(timeline, grouped(story.entries), {
      keyOf: ({ entry }) => String(entry.seq),
      signOf: ({ entry, again }) => `${entry.deliveries.count} ${entry.held} ${again.length}`,
      draw: drawEntry,
    });
  }

  #frame(story) {
    const head = h('div', {});
    const facts = h('dl', { class: 'facts' });
    const timeline = h('ol', { class: 'timeline' });
    const close = h(
      'button',
      { type: 'button', class: 'quiet', onclick: () => this.close() },
      'Close',
    );
    const outcome = h('p', { role: 'status', class: 'calm' });
    const form = this.#canAct
      ? decisionForm(this.#api, story, () => this.refresh(story))
      : undefined;
    at('story').replaceChildren(
      h('div', { class: 'top' }, head, close),
      facts,
      this.#canAct
        ? h('div', { class: 'actions' }, this.#askButton(story, outcome), form.opener, outcome)
        : h(
            'p',
            { class: 'note' },
            'This key may look only: asking Pockyt and deciding need an admin key.',
          ),
      form?.element ?? '',
      h('h3', {}, 'What was said'),
      timeline,
    );
    close.focus();
    return { head, facts, timeline, form };
  }

  #askButton(story, outcome) {
    const ask = async ({ currentTarget: button }) => {
      button.disabled = true;
      say(outcome, 'Asking Pockyt …');
      say(outcome, await askPockyt(this.#api, story));
      await this.refresh(story);
      button.disabled = false;
    };
    return h('button', { type: 'button', 'data-acts': true, onclick: ask }, 'Ask Pockyt now');
  }
}

/** Ask the listener to ask Pockyt now; resolves to what came of it, in words. */
export async function askPockyt(api, { merchantNo, transactionNo }) {
  try {
    const found = await api.post(
      `${pathOf({ transactionNo }, 'ask')}?merchantNo=${encodeURIComponent(merchantNo)}`,
    );
    return `Asked. It is ${shown(found.transaction ?? found).word.toLowerCase()}.`;
  } catch (error) {
    return `No status from Pockyt: ${error.message}`;
  }
}

function saysOf(story) {
  const { cancel } = story;
  const needs = caseOf(story);
  if (needs !== undefined) return needs.todo;
  const says = STATUSES[story.status]?.says ?? '';
  if (cancel?.state === 'refused') return `${says} A cancel was refused: it had been paid already.`;
  return says;
}

function factsOf(story) {
  const { cancel } = story;
  const rows = [
    ['Reference', story.reference],
    ['Number', h('span', { class: 'mono' }, story.transactionNo)],
    ['Merchant', story.merchantNo],
    ['Store · till', [story.storeNo ?? 'no store', story.terminal].filter(Boolean).join(' · ')],
    ['Pockyt’s word', story.providerStatus && h('code', {}, story.providerStatus)],
    ['First heard', moment(story.createdAt)],
    ['Last word', moment(story.updatedAt)],
    [
      'Cancel',
      cancel && h('span', {}, `${cancelWord(cancel)}, asked for `, moment(cancel.requestedAt)),
    ],
  ];
  return rows
    .filter(([, value]) => value)
    .flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]);
}

/** Word how a cancel stands as the rest of the page does. */
function cancelWord({ state }) {
  const ended = {
    confirmed: wordOf('cancelled'),
    refunded: wordOf('refunded'),
    refused: 'Refused',
  };
  return ended[state] ?? wordOf(state === 'requested' ? 'cancelling' : state);
}

/** Group questions that came to the same again and again: a chase may be dozens of them. */
function grouped(entries) {
  const groups = [];
  for (const entry of entries) {
    const last = groups.at(-1);
    const isSame =
      last &&
      entry.kind === 'query' &&
      last.entry.kind === 'query' &&
      sentenceOf(last.entry) === sentenceOf(entry);
    if (isSame) last.again.push(entry);
    else groups.push({ entry, again: [] });
  }
  return groups;
}

function drawEntry({ entry, again }) {
  const { kind, fields, deliveries, held, heldReason, asOf } = entry;
  const isRaised = kind === 'alarm' || fields.error !== undefined;
  const more = [
    fields.error === undefined && fields.next !== 'prepay' ? EVIDENCE[kind] : undefined,
    entry.amount && `${entry.amount} ${entry.currency ?? ''}`.trim(),
    asOf ? `about all up to entry ${asOf}` : undefined,
  ].filter(Boolean);
  return h(
    'li',
    { class: `${isRaised ? 'raised' : ''} ${held ? 'is-held' : ''}` },
    h('span', { class: 'who' }, icon(iconOf(entry))),
    h('p', { class: 'what' }, sentenceOf(entry)),
    moment(entry.recordedAt),
    more.length > 0 && h('p', { class: 'more' }, more.join(' · ')),
    deliveries.count > 1 &&
      h(
        'p',
        { class: 'more' },
        `Delivered ${deliveries.count} times, last at `,
        moment(deliveries.last),
      ),
    again.length > 0 &&
      h(
        'p',
        { class: 'more' },
        `The same ${again.length} more time${again.length === 1 ? '' : 's'}, last at `,
        moment(again.at(-1).recordedAt),
      ),
    held &&
      h(
        'p',
        { class: 'more why' },
        `Held, so it counts for nothing: ${HELD[heldReason] ?? heldReason}.`,
      ),
    h(
      'details',
      {},
      h('summary', {}, `Entry ${entry.seq}`),
      h('dl', { class: 'facts' }, ...fieldsOf(entry)),
    ),
  );
}

function iconOf({ kind, fields }) {
  if (fields.error !== undefined) return 'alarm';
  return { sale: 'till', cancel_request: 'cancelling' }[kind] ?? kind;
}

/** Word an entry as a sentence: who said what. */
function sentenceOf({ kind, providerStatus, fields, refunded, currency }) {
  const word = providerStatus ? `“${providerStatus.trim()}”` : 'no status';
  const wentBack = refunded ? `; ${money({ amount: refunded, currency })} went back` : '';
  const call = CALLS[fields.call] ?? fields.call;
  switch (kind) {
    case 'notification':
      return `Pockyt notified: ${word}`;
    case 'sale':
      return 'The till started the sale';
    case 'cancel_request':
      return fields.refundIfPaid === 'true'
        ? 'The till asked to cancel, or to refund if paid'
        : 'The till asked to cancel';
    case 'query':
      if (fields.error) return `We asked Pockyt; ${failureOf(fields)}`;
      return `We asked Pockyt: ${word}${wentBack}`;
    case 'answer':
      if (fields.error) return `We asked Pockyt to ${call}; ${failureOf(fields)}`;
      if (fields.next === 'prepay') return `We are asking Pockyt to ${call}`;
      return `Pockyt was asked to ${call} and said ${word === 'no status' ? 'yes' : word}${wentBack}`;
    case 'alarm':
      return fields.alarm === 'unresolved'
        ? 'Raised: no answer within 60 seconds'
        : `Raised: ${fields.alarm}`;
    case 'decision':
      return `${fields.name} decided that it is ${fields.status}: ${fields.reason}`;
    default:
      return kind;
  }
}

function failureOf({ error, retCode, retMsg }) {
  if (error === 'refused') {
    return `it refused (${[retCode, retMsg?.trim()].filter(Boolean).join(' ')})`;
  }
  return `there was no answer (${error})`;
}

function fieldsOf({ fields, hash }) {
  const rows = [...Object.entries(fields), ['hash', hash]];
  return rows.flatMap(([name, value]) => [h('dt', {}, name), h('dd', { class: 'mono' }, value)]);
}
