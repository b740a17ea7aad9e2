// A numbered picture: a source and a frame counter as 32 big black and white cells, with a checksum, so that both can be
// read back from decoded pixels after any codec. Below the cells runs a moving band: grey, or noise that costs bits.

const COLUMNS = 8;
const ROWS = 4;
const CELLS_SHARE = 0.8;

/** CRC-8 (polynomial 0x07, start 0x5a) over the source and the two counter bytes. */
function checksum(source, counter) {
  let crc = 0x5a;
  for (const byte of [source, counter >> 8, counter & 0xff]) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : crc << 1;
  }
  return crc;
}

function cell(index, width, height) {
  const cellWidth = width / COLUMNS;
  const cellHeight = (height * CELLS_SHARE) / ROWS;
  const column = index % COLUMNS;
  const row = Math.floor(index / COLUMNS);
  return { x: column * cellWidth, y: row * cellHeight, cellWidth, cellHeight };
}

/** Draws `source` (0–255) and `counter` (modulo 65,536); `noise` is the part of the band that is noise, up to 1. */
export function draw(context, { source, counter, noise }) {
  const { width, height } = context.canvas;
  const number = counter & 0xffff;
  const word = ((source << 24) | (number << 8) | checksum(source, number)) >>> 0;
  for (let index = 0; index < COLUMNS * ROWS; index += 1) {
    const { x, y, cellWidth, cellHeight } = cell(index, width, height);
    context.fillStyle = (word >>> (31 - index)) & 1 ? '#fff' : '#000';
    context.fillRect(x, y, cellWidth, cellHeight);
  }
  const top = Math.ceil(height * CELLS_SHARE);
  band(context, counter, top);
  if (noise) context.putImageData(noiseBand(context, Math.ceil(width * noise), height - top), 0, top);
}

function band(context, counter, top) {
  const { width, height } = context.canvas;
  context.fillStyle = '#777';
  context.fillRect(0, top, width, height - top);
  context.fillStyle = '#fff';
  context.fillRect((counter * 8) % width, top, 24, height - top);
}

function noiseBand(context, width, height) {
  const image = context.createImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  for (let at = 0; at < words.length; at += 1) words[at] = (Math.random() * 0xffffffff) | 0xff000000;
  return image;
}

/** Reads what `draw` drew, at any size; `undefined` when the checksum says the picture is damaged. */
export function read(context) {
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  let word = 0;
  for (let index = 0; index < COLUMNS * ROWS; index += 1) {
    const { x, y, cellWidth, cellHeight } = cell(index, width, height);
    const column = Math.floor(x + cellWidth / 2);
    const row = Math.floor(y + cellHeight / 2);
    word = (word << 1) | (data[(row * width + column) * 4 + 1] > 127 ? 1 : 0);
  }
  word >>>= 0;
  const source = word >>> 24;
  const counter = (word >>> 8) & 0xffff;
  return checksum(source, counter) === (word & 0xff) ? { source, counter } : undefined;
}
