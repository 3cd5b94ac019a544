/**
 * Draw a QR code: bytes, error correction level M, the smallest version that holds the text.
 *
 * Source: ISO/IEC 18004; the steps bear its names.
 */

import { s } from './dom.js';

const VERSION_MAX = 20;
// For level M, by version: error correction codewords in each block, and how many blocks.
const ECC_CODEWORDS = [
  0, 10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26,
];
const BLOCKS = [0, 1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16];
const LEVEL_M = 0b00;
const BYTE_MODE = 0b0100;
const QUIET_MODULES = 4;

const MASKS = [
  (x, y) => (x + y) % 2,
  (x, y) => y % 2,
  (x) => x % 3,
  (x, y) => (x + y) % 3,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2,
  (x, y) => ((x * y) % 2) + ((x * y) % 3),
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2,
];

/** Make the picture of a code, with its quiet zone; undefined where the text is too long. */
export function qrPicture(text, label) {
  const modules = qrModules(text);
  if (modules === undefined) return undefined;
  const size = modules.length + 2 * QUIET_MODULES;
  const path = modules
    .flatMap((row, y) =>
      row.map((isDark, x) => (isDark ? `M${x + QUIET_MODULES} ${y + QUIET_MODULES}h1v1h-1z` : '')),
    )
    .join('');
  const attributes = {
    viewBox: `0 0 ${size} ${size}`,
    role: 'img',
    'aria-label': label,
    'shape-rendering': 'crispEdges',
  };
  return s('svg', attributes, s('path', { d: path }));
}

/** Work out the modules of a code, row by row, true where dark; undefined where it is too long. */
export function qrModules(text) {
  const bytes = new TextEncoder().encode(text);
  const version = versionFor(bytes.length);
  if (version === undefined) return undefined;
  const codewords = interleave(dataCodewords(bytes, version), version);
  const drawn = MASKS.map((mask, number) => {
    const grid = new Grid(version);
    grid.drawCodewords(codewords);
    grid.applyMask(mask);
    grid.drawFormat(number);
    return grid;
  });
  const penalties = drawn.map((grid) => grid.penalty());
  return drawn[penalties.indexOf(Math.min(...penalties))].modules;
}

// ---- Data: bytes to codewords.

function rawCodewords(version) {
  let modules = (16 * version + 128) * version + 64;
  if (version >= 2) {
    const alignments = Math.floor(version / 7) + 2;
    modules -= (25 * alignments - 10) * alignments - 55;
    if (version >= 7) modules -= 36;
  }
  return Math.floor(modules / 8);
}

function dataCapacity(version) {
  return rawCodewords(version) - ECC_CODEWORDS[version] * BLOCKS[version];
}

function countBits(version) {
  return version < 10 ? 8 : 16;
}

function versionFor(length) {
  for (let version = 1; version <= VERSION_MAX; version += 1) {
    if (4 + countBits(version) + 8 * length <= 8 * dataCapacity(version)) return version;
  }
  return undefined;
}

function dataCodewords(bytes, version) {
  const bits = [];
  const append = (value, length) => {
    for (let place = length - 1; place >= 0; place -= 1) bits.push((value >>> place) & 1);
  };
  append(BYTE_MODE, 4);
  append(bytes.length, countBits(version));
  bytes.forEach((byte) => append(byte, 8));
  const capacity = dataCapacity(version) * 8;
  append(0, Math.min(4, capacity - bits.length));
  append(0, (8 - (bits.length % 8)) % 8);
  for (let pad = 0xec; bits.length < capacity; pad ^= 0xec ^ 0x11) append(pad, 8);
  return Array.from({ length: bits.length / 8 }, (_, place) =>
    bits.slice(place * 8, place * 8 + 8).reduce((byte, bit) => (byte << 1) | bit, 0),
  );
}

/** Split data into blocks, add each one's error correction, and deal them out in turn. */
function interleave(data, version) {
  const count = BLOCKS[version];
  const ecc = ECC_CODEWORDS[version];
  const raw = rawCodewords(version);
  const shortLength = Math.floor(raw / count) - ecc;
  const shortCount = count - (raw % count);
  const divisor = generator(ecc);
  const blocks = [];
  for (let number = 0, start = 0; number < count; number += 1) {
    const length = shortLength + (number < shortCount ? 0 : 1);
    const block = data.slice(start, start + length);
    blocks.push({ data: block, ecc: remainder(block, divisor) });
    start += length;
  }
  const dealt = [];
  for (let place = 0; place <= shortLength; place += 1) {
    for (const block of blocks) if (place < block.data.length) dealt.push(block.data[place]);
  }
  for (let place = 0; place < ecc; place += 1) {
    for (const block of blocks) dealt.push(block.ecc[place]);
  }
  return dealt;
}

// ---- Reed and Solomon, over the field of 256 elements.

function multiply(one, other) {
  let product = 0;
  for (let bit = 7; bit >= 0; bit -= 1) {
    product = (product << 1) ^ ((product >>> 7) * 0x11d);
    product ^= ((other >>> bit) & 1) * one;
  }
  return product;
}

function generator(degree) {
  const result = new Array(degree).fill(0);
  result[degree - 1] = 1;
  for (let turn = 0, root = 1; turn < degree; turn += 1, root = multiply(root, 2)) {
    for (let place = 0; place < degree; place += 1) {
      result[place] = multiply(result[place], root) ^ (result[place + 1] ?? 0);
    }
  }
  return result;
}

function remainder(data, divisor) {
  const result = divisor.map(() => 0);
  for (const byte of data) {
    const factor = byte ^ result.shift();
    result.push(0);
    divisor.forEach((coefficient, place) => {
      result[place] ^= multiply(coefficient, factor);
    });
  }
  return result;
}

// ---- The picture: modules, and which of them hold no data.

class Grid {
  constructor(version) {
    this.version = version;
    this.size = version * 4 + 17;
    this.modules = Array.from({ length: this.size }, () => new Array(this.size).fill(false));
    this.isFunction = this.modules.map((row) => [...row]);
    this.#drawFunctions();
  }

  drawCodewords(codewords) {
    const end = this.size - 1;
    let place = 0;
    for (let right = end; right >= 1; right -= 2) {
      if (right === 6) right = 5; // The column of the timing pattern.
      const isUpward = ((right + 1) & 2) === 0;
      for (let step = 0; step < this.size; step += 1) {
        const y = isUpward ? end - step : step;
        for (const x of [right, right - 1]) {
          if (this.isFunction[y][x] || place >= codewords.length * 8) continue;
          this.modules[y][x] = ((codewords[place >>> 3] >>> (7 - (place & 7))) & 1) === 1;
          place += 1;
        }
      }
    }
  }

  applyMask(mask) {
    this.#each((x, y) => {
      if (!this.isFunction[y][x] && mask(x, y) === 0) this.modules[y][x] = !this.modules[y][x];
    });
  }

  drawFormat(mask) {
    const data = (LEVEL_M << 3) | mask;
    const bits = ((data << 10) | divideBits(data, 10, 0x537)) ^ 0x5412;
    const bit = (number) => ((bits >>> number) & 1) === 1;
    const end = this.size - 1;
    for (let number = 0; number <= 5; number += 1) this.#set(8, number, bit(number));
    this.#set(8, 7, bit(6));
    this.#set(8, 8, bit(7));
    this.#set(7, 8, bit(8));
    for (let number = 9; number < 15; number += 1) this.#set(14 - number, 8, bit(number));
    for (let number = 0; number < 8; number += 1) this.#set(end - number, 8, bit(number));
    for (let number = 8; number < 15; number += 1) this.#set(8, end - 14 + number, bit(number));
    this.#set(8, this.size - 8, true);
  }

  /** Rate how hard it is to read; the mask with the least wins. */
  penalty() {
    const columns = this.modules.map((_, x) => this.modules.map((row) => row[x]));
    const lines = [...this.modules, ...columns];
    let sum = lines.reduce((all, line) => all + runsPenalty(line) + finderPenalty(line), 0);
    for (let y = 0; y + 1 < this.size; y += 1) {
      for (let x = 0; x + 1 < this.size; x += 1) {
        const [upper, lower] = [this.modules[y], this.modules[y + 1]];
        if (upper[x] === upper[x + 1] && upper[x] === lower[x] && upper[x] === lower[x + 1]) {
          sum += 3;
        }
      }
    }
    const dark = this.modules.flat().filter(Boolean).length;
    const share = (dark * 20) / this.size ** 2; // In steps of 5 %, of which 10 is half.
    return sum + Math.max(0, Math.ceil(Math.abs(share - 10)) - 1) * 10;
  }

  #drawFunctions() {
    const end = this.size - 1;
    for (let place = 0; place < this.size; place += 1) {
      this.#set(6, place, place % 2 === 0);
      this.#set(place, 6, place % 2 === 0);
    }
    for (const [x, y] of [
      [3, 3],
      [end - 3, 3],
      [3, end - 3],
    ]) {
      this.#drawSquares(x, y, 4);
    }
    const places = alignmentPlaces(this.version);
    const last = places.length - 1;
    places.forEach((x, column) =>
      places.forEach((y, row) => {
        const isFinder =
          (column === 0 && (row === 0 || row === last)) || (column === last && row === 0);
        if (!isFinder) this.#drawSquares(x, y, 2);
      }),
    );
    this.drawFormat(0); // Holds its place until the mask is known.
    this.#drawVersion();
  }

  /** Draw squares within each other around a centre: a finder (4) or an alignment pattern (2). */
  #drawSquares(centreX, centreY, radius) {
    for (let dy = -radius; dy <= radius; dy += 1) {
      for (let dx = -radius; dx <= radius; dx += 1) {
        const [x, y] = [centreX + dx, centreY + dy];
        const distance = Math.max(Math.abs(dx), Math.abs(dy));
        const isLight = radius === 4 ? distance === 2 || distance === 4 : distance === 1;
        if (x >= 0 && y >= 0 && x < this.size && y < this.size) this.#set(x, y, !isLight);
      }
    }
  }

  #drawVersion() {
    if (this.version < 7) return;
    const bits = (this.version << 12) | divideBits(this.version, 12, 0x1f25);
    for (let number = 0; number < 18; number += 1) {
      const isDark = ((bits >>> number) & 1) === 1;
      const far = this.size - 11 + (number % 3);
      const near = Math.floor(number / 3);
      this.#set(far, near, isDark);
      this.#set(near, far, isDark);
    }
  }

  #set(x, y, isDark) {
    this.modules[y][x] = isDark;
    this.isFunction[y][x] = true;
  }

  #each(visit) {
    for (let y = 0; y < this.size; y += 1) for (let x = 0; x < this.size; x += 1) visit(x, y);
  }
}

function alignmentPlaces(version) {
  if (version === 1) return [];
  const count = Math.floor(version / 7) + 2;
  const step = Math.ceil((version * 4 + 4) / (count * 2 - 2)) * 2;
  const others = Array.from({ length: count - 1 }, (_, place) => version * 4 + 10 - place * step);
  return [6, ...others.reverse()];
}

function divideBits(data, degree, divisor) {
  let rest = data;
  for (let turn = 0; turn < degree; turn += 1) {
    rest = (rest << 1) ^ ((rest >>> (degree - 1)) * divisor);
  }
  return rest;
}

function runsPenalty(line) {
  let sum = 0;
  for (let start = 0, end = 0; start < line.length; start = end) {
    while (end < line.length && line[end] === line[start]) end += 1;
    if (end - start >= 5) sum += end - start - 2;
  }
  return sum;
}

/** Rate what looks like a finder: 1:1:3:1:1 with four light modules on one side. */
function finderPenalty(line) {
  const text = line.map((isDark) => (isDark ? '1' : '0')).join('');
  return 40 * (text.match(/(?=10111010000)|(?=00001011101)/g)?.length ?? 0);
}
