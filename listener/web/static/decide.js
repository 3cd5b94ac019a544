/** The form of an operator's decision, for what Pockyt cannot settle. */

import { pathOf } from './api.js';
import { h, say } from './dom.js';
import { keep } from './gate.js';
import { STATUSES } from './statuses.js';

const NAME = 'listener-operator';
const SETTLED = ['paid', 'cancelled', 'refunded', 'failed'];

/**
 * Make the form and the button that opens it; `onDone()` once a decision was recorded, or came too
 * late. Tell it with `saw()` which version of the transaction is shown.
 */
export function decisionForm(api, { merchantNo, transactionNo }, onDone) {
  let shown;
  let decidedOn;
  const status = h(
    'select',
    { id: 'decide-status', required: true },
    h('option', { value: '' }, 'Choose …'),
    ...SETTLED.map((one) => h('option', { value: one }, STATUSES[one].word)),
  );
  const name = h('input', {
    id: 'decide-name',
    required: true,
    maxlength: 100,
    autocomplete: 'name',
    value: sessionStorage.getItem(NAME) ?? '',
  });
  const reason = h('textarea', {
    id: 'decide-reason',
    required: true,
    maxlength: 500,
    rows: 2,
    placeholder: 'What you saw, and where',
  });
  const error = h('p', { class: 'error', role: 'alert' });
  const send = h('button', { class: 'main', 'data-acts': true }, 'Record the decision');
  const opener = h(
    'button',
    { type: 'button', 'aria-expanded': 'false', onclick: () => toggle(element.hidden) },
    'Decide …',
  );
  const element = h(
    'form',
    { class: 'decide', hidden: true, onsubmit: submit },
    h(
      'p',
      {},
      'For what Pockyt cannot settle. It overrules everything before it, stays on record with your name, and the tills are told.',
    ),
    h('label', { for: 'decide-status' }, 'It is'),
    status,
    h('label', { for: 'decide-reason' }, 'Because'),
    reason,
    h('label', { for: 'decide-name' }, 'Your name'),
    name,
    error,
    h(
      'div',
      { class: 'buttons' },
      send,
      h('button', { type: 'button', onclick: () => toggle(false) }, 'Leave it'),
    ),
  );

  function toggle(isOpen) {
    element.hidden = !isOpen;
    decidedOn = shown;
    opener.setAttribute('aria-expanded', String(isOpen));
    (isOpen ? status : opener).focus();
  }

  async function submit(event) {
    event.preventDefault();
    const decision = {
      status: status.value,
      name: name.value.trim(),
      reason: reason.value.trim(),
      stateVersion: decidedOn,
    };
    keep(NAME, decision.name);
    send.disabled = true;
    try {
      await api.post(
        `${pathOf({ transactionNo }, 'decide')}?merchantNo=${encodeURIComponent(merchantNo)}`,
        decision,
      );
      say(error, '');
      element.reset();
      toggle(false);
      onDone();
    } catch (refused) {
      say(error, refused.message);
      if (refused.code === 'changed-meanwhile') {
        await onDone();
        decidedOn = shown;
      }
    }
    send.disabled = false;
  }

  const saw = (stateVersion) => {
    shown = stateVersion;
  };
  return { element, opener, saw, open: () => toggle(true) };
}
