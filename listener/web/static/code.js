/** Show the code that a customer scans; the listener draws it. */

import { h } from './dom.js';

const PICTURES_MAX = 100;
const drawn = new Map();

/** Make the picture of a code; it appears once the listener has drawn it. */
export function codePicture(api, text, label) {
  const picture = h('img', { alt: label, class: 'qr' });
  if (!drawn.has(text)) drawn.set(text, api.postText('/till/code', text));
  if (drawn.size > PICTURES_MAX) drawn.delete(drawn.keys().next().value);
  drawn.get(text).then(
    (svg) => {
      picture.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
    },
    // It is tried again the next time that the sale is drawn.
    () => drawn.delete(text),
  );
  return picture;
}
