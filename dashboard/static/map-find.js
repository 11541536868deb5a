// Which point lies where: the nearest to a place, and those within a polygon. All sums are of whole numbers, as the server's are.
"use strict";

const CELLS = 256, SHIFT = 8; // cells along each side, of 256 units

export class Finder {
  constructor(x, y) {
    this.x = x;
    this.y = y;
    const count = x.length, starts = this.starts = new Uint32Array(CELLS * CELLS + 1), members = this.members = new Uint32Array(count);
    const cell = (point) => (y[point] >> SHIFT) * CELLS + (x[point] >> SHIFT);
    for (let point = 0; point < count; point++) starts[cell(point) + 1]++;
    for (let place = 0; place < CELLS * CELLS; place++) starts[place + 1] += starts[place];
    const next = starts.slice();
    for (let point = 0; point < count; point++) members[next[cell(point)]++] = point;
  }

  // The point nearest to a place, at most `reach` away, for which `wanted` holds; -1: none.
  nearest(x, y, reach, wanted = () => true) {
    const limit = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(value) >> SHIFT));
    let best = -1, least = reach * reach;
    for (let row = limit(y - reach); row <= limit(y + reach); row++) {
      for (let cell = row * CELLS + limit(x - reach); cell <= row * CELLS + limit(x + reach); cell++) {
        for (let place = this.starts[cell]; place < this.starts[cell + 1]; place++) {
          const point = this.members[place], away = (this.x[point] - x) ** 2 + (this.y[point] - y) ** 2;
          if (away < least && wanted(point)) { least = away; best = point; }
        }
      }
    }
    return best;
  }
}

// A function that tells whether a place is within `corners` [[x, y], ...], by the even-odd rule.
export function within(corners) {
  const edges = corners.map((corner, place) => [corner, corners[(place + 1) % corners.length]])
    .filter(([one, other]) => one[1] !== other[1])
    .map(([one, other]) => (one[1] < other[1] ? [...one, ...other] : [...other, ...one]));
  return (x, y) => {
    let odd = false;
    for (const [x1, y1, x2, y2] of edges) {
      if (y >= y1 && y < y2 && (x - x1) * (y2 - y1) < (x2 - x1) * (y - y1)) odd = !odd;
    }
    return odd;
  };
}

// A line that a hand has drawn, with at most `most` corners of whole numbers between 0 and 65535: every so many of them.
export function simplified(line, most) {
  const step = Math.max(1, Math.ceil(line.length / most));
  return line.filter((_, place) => place % step === 0).map((corner) => corner.map((value) => Math.max(0, Math.min(65535, Math.round(value)))));
}
