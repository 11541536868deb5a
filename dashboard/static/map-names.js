// Names of clusters above the dots, none upon another: the largest first, and that of the one that is chosen before all.
"use strict";

const SHIFTS = [[0, 0], [0, .6], [0, -.6], [0, 1.2], [0, -1.2], [.35, 0], [-.35, 0]], GAP = 4, MOST = 60;

export class Names {
  // `islands`: { name, x, y, count }, largest first.
  constructor(box, islands) {
    this.box = box;
    this.shown = islands.slice(0, 300).map((island) => {
      const label = document.createElement("span");
      label.textContent = island.name;
      label.style.fontSize = `${(10.5 + 4 * Math.sqrt(island.count / Math.max(1, islands[0].count))).toFixed(1)}px`;
      return { ...island, label };
    });
    box.replaceChildren(...this.shown.map((one) => one.label));
    for (const one of this.shown) [one.wide, one.high] = [one.label.offsetWidth, one.label.offsetHeight];
  }

  // `onScreen`: from units to CSS pixels. `chosen`: the number of a cluster, or null.
  arrange(onScreen, wide, high, chosen) {
    const taken = [];
    const order = [...this.shown].sort((one, other) => (other.number === chosen) - (one.number === chosen));
    for (const one of order) {
      const [x, y] = onScreen(one.x, one.y);
      const free = taken.length < MOST && one.count > 0 && x >= 0 && y >= 0 && x <= wide && y <= high && this.room(one, x, y, wide, high, taken);
      one.label.hidden = !free;
      one.label.style.visibility = free ? "visible" : "hidden";
      one.label.className = one.number === chosen ? "here" : "";
      if (!free) continue;
      taken.push(free);
      one.label.style.transform = `translate(${free[0].toFixed(1)}px, ${free[1].toFixed(1)}px)`;
    }
  }

  room(one, x, y, wide, high, taken) {
    for (const [across, up] of SHIFTS) {
      const left = x + (across - .5) * one.wide, top = y + (up - .5) * one.high, right = left + one.wide, bottom = top + one.high;
      if (left < 2 || top < 2 || right > wide - 2 || bottom > high - 2) continue;
      if (taken.every(([l, t, r, b]) => left >= r + GAP || right <= l - GAP || top >= b + GAP || bottom <= t - GAP)) return [left, top, right, bottom];
    }
    return null;
  }
}
