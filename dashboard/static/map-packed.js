// What the server packs: 4 bytes of length, a header in JSON, and columns of numbers, which are read where they lie.
"use strict";

const KINDS = { u1: Uint8Array, u2: Uint16Array, i2: Int16Array };

export async function fetchPacked(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${answer.status}`);
  const buffer = await answer.arrayBuffer(), length = new DataView(buffer).getUint32(0, true);
  const found = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let start = 4 + length;
  for (const [name, kind, count] of found.columns) {
    found[name] = new KINDS[kind](buffer, start, count);
    start += Math.ceil(found[name].byteLength / 8) * 8;
  }
  return found;
}
