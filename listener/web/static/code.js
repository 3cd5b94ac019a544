/** Show the code that a customer scans; the listener draws it. */

import { h } from './dom.js';

const drawn = new Map();

/** Make the picture of a code; it appears once the listener has drawn it. */
export function codePicture(api, text, label) {
  const picture = h('img', { alt: label, class: 'qr' });
  if (!drawn.has(text)) drawn.set(text, api.postText('/till/code', text));
  drawn.get(text).then(
    (svg) => {
      picture.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
    },
    // It is tried again the next time that the sale is drawn.
    () => drawn.delete(text),
  );
  return picture;
}
