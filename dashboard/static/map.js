// The map of a version. Its state is in the address; what comes from documents is written by textContent, or is the server's own HTML.
"use strict";
import { CHOSEN, Dots, FAINT, FIRST_SIGN } from "./map-dots.js";
import { Finder, simplified, within } from "./map-find.js";
import { Names } from "./map-names.js";
import { fetchPacked } from "./map-packed.js";

const FULL = 65535, REACH = 12, CORNERS = 100, MOST_LINES = 3000, GREY = 8, RISING = 9, SPOTS = 50_000, CROWD = 10_000;
const at = (id) => document.getElementById(id);
const stage = at("stage"), choices = at("choices"), busy = at("busy"), tip = at("tip"), [loop, ring] = at("loop").children;
const asked = new URLSearchParams(location.search);
const view = { x: FULL / 2, y: FULL / 2, scale: 0 };
let dots, data, finder, names, fitted = 1, pending = false, settled = 0, codes = null, line = null, requested = 0;

const state = () => new URLSearchParams([...Object.entries({ of: stage.dataset.of, atlas: stage.dataset.atlas, since: choices.since.value, by: choices.by.value }),
  ...["cluster", "point", "lasso"].flatMap((key) => (asked.has(key) ? [[key, asked.get(key)]] : []))].filter(([, value]) => value));

function keepAddress() {
  const kept = state();
  if (view.scale && Math.abs(view.scale / fitted - 1) + Math.abs(view.x - data.extent[0] / 2) + Math.abs(view.y - data.extent[1] / 2) > .01) {
    kept.set("view", [Math.round(view.x), Math.round(view.y), (view.scale / fitted).toPrecision(4)].join(","));
  }
  choices.elements.view.value = kept.get("view") ?? "";
  history.replaceState(null, "", `?${kept}`);
}

// ---- drawing

const colour = (name) => {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((from) => parseInt(hex.slice(from, from + 2), 16) / 255);
};

function readColours() {
  const dense = data.x.length > 300_000 ? .55 : .8;
  const put = (slot, name, alpha) => dots.palette.set([...colour(name), alpha], 4 * slot);
  for (let place = 0; place <= GREY; place++) put(place, `--c${place}`, place === GREY ? .5 : dense);
  for (let place = 0; place < 7; place++) put(RISING + place, `--r${place}`, dense);
  for (let place = 0; place < 5; place++) put(FIRST_SIGN + place, `--s${place}`, place ? .9 : .35);
}

// Slots of the palette: of clusters by their colours, of codes by the scale that they have.
function paint() {
  const count = data.x.length, slots = new Uint8Array(count), scale = codes?.scale;
  if (!codes) {
    const own = data.islands.map(([, , slot]) => slot);
    for (let point = 0; point < count; point++) slots[point] = data.island[point] < 0 ? GREY : own[data.island[point]];
  } else {
    const own = scale === "changes" ? [0, 1, 2, 3].map((code) => FIRST_SIGN + code)
      : [0, 1, 2, 3, 4, 5, 6, 7, 8].map((code) => (code > 6 ? GREY : scale === "rising" ? RISING + code : code));
    for (let point = 0; point < count; point++) slots[point] = own[codes.codes[point]];
  }
  dots.group("points", { slots });
  dots.crowded = scale === "changes" && codes.legend.slice(1).reduce((sum, [, , some]) => sum + some, 0) > CROWD;
  if (scale === "changes" && codes.gone.length) {
    const gone = codes.gone.length / 2;
    dots.group("gone", { places: codes.gone, slots: new Uint8Array(gone).fill(FIRST_SIGN + 4), marks: new Uint8Array(gone) });
  } else dots.remove("gone");
  mark();
}

// Which points are chosen; the others are faint.
function mark() {
  const count = data.x.length, marks = new Uint8Array(count), chosen = isChosen(), others = asked.has("point") ? 0 : FAINT;
  if (chosen) for (let point = 0; point < count; point++) marks[point] = chosen(point) ? CHOSEN : others;
  dots.group("points", { marks });
  if (codes?.scale === "changes" && codes.gone.length) {
    const inside = asked.has("lasso") ? within(corners(asked.get("lasso"))) : () => !chosen || asked.has("point");
    dots.group("gone", { marks: Uint8Array.from({ length: codes.gone.length / 2 }, (_, one) => (inside(codes.gone[2 * one], codes.gone[2 * one + 1]) ? 0 : FAINT)) });
  }
  stroke(marks, chosen);
  showCluster();
  draw();
}

function isChosen() {
  if (asked.has("point")) { const one = Number(asked.get("point")); return (point) => point === one; }
  if (asked.has("lasso")) { const inside = within(corners(asked.get("lasso"))); return (point) => inside(data.x[point], data.y[point]); }
  if (asked.has("cluster")) {
    const place = data.islands.findIndex(([number]) => number === Number(asked.get("cluster")));
    return (point) => data.island[point] === place;
  }
  return null;
}

const corners = (text) => text.split(",").map(Number).reduce((found, value, place) => {
  if (place % 2) found.at(-1).push(value); else found.push([value]);
  return found;
}, []);

// Lines from where chunks lay to where they lie: of those that are chosen, or of all while they are few.
function stroke(marks, chosen) {
  const places = [];
  if (codes?.scale === "changes") {
    let origin = 0;
    for (let point = 0; point < codes.codes.length; point++) {
      if (codes.codes[point] < 2) continue;
      const x = codes.origins[2 * origin], y = codes.origins[2 * origin + 1];
      origin++;
      if ((!chosen || marks[point] === CHOSEN) && (x !== data.x[point] || y !== data.y[point])) places.push(x, y, data.x[point], data.y[point]);
      if (places.length > 4 * MOST_LINES) break;
    }
  }
  const some = places.length && places.length <= 4 * MOST_LINES;
  dots.stroke(some ? new Uint16Array(places) : null, [...colour("--ink"), places.length > 800 ? .25 : .6]);
  at("legend").lastElementChild.textContent = !places.length ? ""
    : some ? "A line leads from where a chunk lay to where it lies." : "Choose a cluster or draw a lasso to see where its changed chunks lay.";
}

function draw(hasty = false) {
  clearTimeout(settled);
  if (hasty) settled = setTimeout(() => { draw(); keepAddress(); }, 160);
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    render(hasty);
  });
}

function render(hasty) {
  const wide = stage.clientWidth, high = stage.clientHeight;
  if (!wide || !high) return;
  // Rows lie close beside their landmarks: of many, no more spots than these are told apart on the whole map.
  const base = Math.sqrt(wide * high / Math.max(1, Math.min(data.x.length, SPOTS))), size = Math.min(18, Math.max(2, Math.min(9, base) * Math.sqrt(view.scale / fitted)));
  dots.draw(view, wide, high, devicePixelRatio || 1, size, hasty);
  names.arrange(onScreen, wide, high, asked.has("cluster") ? Number(asked.get("cluster")) : null);
  loop.setAttribute("points", (line ?? (asked.has("lasso") ? corners(asked.get("lasso")) : [])).map(([x, y]) => onScreen(x, y).map((value) => value.toFixed(1)).join(",")).join(" "));
  const one = asked.has("point") ? Number(asked.get("point")) : -1, [x, y] = one >= 0 ? onScreen(data.x[one], data.y[one]) : [-99, -99];
  for (const [key, value] of [["cx", x], ["cy", y]]) ring.setAttribute(key, value.toFixed(1));
}

const onScreen = (x, y) => [stage.clientWidth / 2 + (x - view.x) * view.scale, stage.clientHeight / 2 - (y - view.y) * view.scale];
const onMap = (x, y) => [view.x + (x - stage.clientWidth / 2) / view.scale, view.y - (y - stage.clientHeight / 2) / view.scale];

// ---- moving

function fit() {
  const [wide, high] = data.extent;
  fitted = Math.min((stage.clientWidth - 8) / wide, (stage.clientHeight - 8) / high) || 1e-3;
}

function whole() {
  fit();
  Object.assign(view, { x: data.extent[0] / 2, y: data.extent[1] / 2, scale: fitted });
  draw();
  keepAddress();
}

function place() {
  fit();
  const [x, y, zoom] = (asked.get("view") ?? "").split(",").map(Number);
  if (zoom > 0 && Number.isFinite(x + y + zoom)) Object.assign(view, { x, y, scale: fitted * Math.min(400, Math.max(.5, zoom)) });
  else Object.assign(view, { x: data.extent[0] / 2, y: data.extent[1] / 2, scale: fitted });
}

function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const [mx, my] = onMap(x, y), scale = Math.max(fitted * .5, Math.min(fitted * 400, view.scale * factor));
  view.x = mx - (mx - view.x) * view.scale / scale;
  view.y = my - (my - view.y) * view.scale / scale;
  view.scale = scale;
  tip.hidden = true;
  draw(true);
}

function move(right, down) {
  view.x = Math.max(0, Math.min(FULL, view.x - right / view.scale));
  view.y = Math.max(0, Math.min(FULL, view.y + down / view.scale));
  tip.hidden = true;
  draw(true);
}

// ---- choosing

function choose(what, value, quietly = false) {
  for (const key of ["cluster", "point", "lasso"]) asked.delete(key);
  if (what) asked.set(what, value);
  keepAddress();
  mark();
  if (!quietly) show(state());
}

// What is chosen, as the server writes it.
async function show(query) {
  const mine = ++requested;
  busy.textContent = "looking …";
  try {
    const answer = await fetch(`${stage.dataset.at}/chosen?${query}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (mine !== requested) return;
    const said = page.getElementById("content") ?? page.body;
    at("chosen").replaceChildren(...[...said.childNodes].map((node) => document.adoptNode(node)));
    pointTo(at("chosen").querySelector("h2"));
    const more = at("chosen").querySelector("a[data-more]");
    if (more) await show(more.dataset.more);
  } catch {
    busy.textContent = "The server does not answer.";
  }
}

// Where to look: what is chosen may lie below what is seen.
function pointTo(heading) {
  const link = document.createElement("a");
  link.href = "#chosen";
  link.textContent = heading ? `${heading.textContent} ↓` : "";
  busy.replaceChildren(link);
}

function showCluster() {
  const chosen = asked.get("cluster");
  for (const link of document.querySelectorAll("#clusters a")) {
    const here = link.dataset.cluster === chosen;
    link.closest("tr").classList.toggle("chosen", here);
    if (here) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
  }
}

function pick(x, y) {
  const [mx, my] = onMap(x, y), point = finder.nearest(mx, my, REACH / view.scale);
  if (point >= 0) choose("point", String(point));
  else if (state().has("point") || state().has("cluster") || state().has("lasso")) choose(null);
}

function tableOf(line_) {
  const found = simplified(line_, CORNERS);
  if (found.length >= 3) choose("lasso", found.flat().join(","));
}

function seen() {
  const [left, top] = onMap(0, 0), [right, bottom] = onMap(stage.clientWidth, stage.clientHeight);
  tableOf([[left, top], [right, top], [right, bottom], [left, bottom]]);
}

function tell(x, y) {
  const [mx, my] = onMap(x, y), point = finder.nearest(mx, my, REACH / view.scale), island = point < 0 ? -1 : data.island[point];
  tip.hidden = point < 0;
  if (point < 0) return;
  const code = codes?.legend[codes.codes[point]];
  tip.firstElementChild.textContent = island < 0 ? "in no cluster" : data.islands[island][1];
  tip.lastElementChild.textContent = code ? `${at("legend").firstElementChild.textContent}: ${code[0]} ${code[1]}` : "click for the chunk";
  tip.style.left = `${Math.max(4, Math.min(x + 14, stage.clientWidth - tip.offsetWidth - 6))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > stage.clientHeight ? Math.max(4, y - tip.offsetHeight - 12) : y + 18}px`;
}

// ---- colours

async function recolour() {
  const by = choices.by.value;
  if (by === "clusters") codes = null;
  else {
    busy.textContent = "colouring …";
    codes = await fetchPacked(`${stage.dataset.at}/codes?${new URLSearchParams({ of: stage.dataset.of, atlas: stage.dataset.atlas, since: choices.since.value, by })}`);
    busy.textContent = "";
  }
  explain();
  paint();
  keepAddress();
}

function explain() {
  const box = at("legend"), [title, list] = box.children;
  box.hidden = !codes;
  document.querySelector(".map").classList.toggle("valued", Boolean(codes));
  if (!codes) return;
  title.textContent = choices.by.selectedOptions[0].textContent;
  list.replaceChildren(...codes.legend.flatMap(([sign, label, count], code) => {
    if (!label || !count) return [];
    const item = document.createElement("li"), key = document.createElement(sign ? "b" : "i"), number = document.createElement("span");
    key.className = sign ? `sign s${code}` : `dot ${code > 6 ? "c8" : `${codes.scale === "rising" ? "r" : "c"}${code}`}`;
    key.textContent = sign;
    number.className = "n";
    number.textContent = count.toLocaleString("en");
    item.append(key, label, number);
    return [item];
  }));
}

// ---- hands and keys

function listen() {
  const fingers = new Map(), lasso = at("lasso");
  let moved = 0;
  const drawing = (on) => { lasso.setAttribute("aria-pressed", String(on)); stage.classList.toggle("drawing", on); };
  const spot = (event) => { const box = stage.getBoundingClientRect(); return [event.clientX - box.left - 1, event.clientY - box.top - 1]; };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, spot(event));
    moved = 0;
    if (fingers.size === 1 && (event.shiftKey || lasso.getAttribute("aria-pressed") === "true")) line = [onMap(...spot(event))];
  });
  stage.addEventListener("pointermove", (event) => {
    const here = spot(event), before = fingers.get(event.pointerId);
    if (!before) { tell(...here); return; }
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    moved += Math.abs(here[0] - before[0]) + Math.abs(here[1] - before[1]);
    if (other) {
      line = null;
      const spread = (from) => Math.hypot(from[0] - other[0], from[1] - other[1]) || 1;
      zoom(spread(here) / spread(before), (here[0] + other[0]) / 2, (here[1] + other[1]) / 2);
    } else if (line) { line.push(onMap(...here)); draw(true); } else if (moved > 4) move(here[0] - before[0], here[1] - before[1]);
    fingers.set(event.pointerId, here);
  });
  const lift = (event) => {
    if (!fingers.delete(event.pointerId)) return;
    const drawn = line;
    line = null;
    if (drawn && moved > 4) { drawing(false); tableOf(drawn); } else if (moved <= 4 && event.type === "pointerup") pick(...spot(event));
  };
  stage.addEventListener("pointerup", lift);
  stage.addEventListener("pointercancel", lift);
  stage.addEventListener("pointerleave", () => { tip.hidden = true; });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .0015)), ...spot(event));
  }, { passive: false });
  const middle = () => pick(stage.clientWidth / 2, stage.clientHeight / 2);
  const toggle = () => drawing(lasso.getAttribute("aria-pressed") !== "true");
  stage.addEventListener("keydown", (event) => {
    const does = { ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
      "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: whole, Enter: middle, t: seen, l: toggle,
      Escape: () => { drawing(false); choose(null); } }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (does && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); does(); }
  });
  at("closer").addEventListener("click", () => zoom(1.6));
  at("farther").addEventListener("click", () => zoom(1 / 1.6));
  at("whole").addEventListener("click", whole);
  at("seen").addEventListener("click", seen);
  lasso.addEventListener("click", toggle);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-cluster], a[data-point]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (link.dataset.point) choose("point", link.dataset.point);
    else choose(asked.get("cluster") === link.dataset.cluster ? null : "cluster", link.dataset.cluster);
  });
  choices.by.addEventListener("change", () => recolour().catch(fail));
  choices.of.addEventListener("change", () => choices.requestSubmit());
  choices.since.addEventListener("change", () => { choices.by.disabled = true; choices.requestSubmit(); }); // what changed is what is then asked for
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); mark(); });
  let size = `${stage.clientWidth} ${stage.clientHeight}`; // it is told once without a change
  new ResizeObserver(() => {
    const close = view.scale / fitted, now = `${stage.clientWidth} ${stage.clientHeight}`;
    if (now === size) return;
    size = now;
    fit();
    view.scale = close * fitted;
    draw();
  }).observe(stage);
  dots.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  dots.canvas.addEventListener("webglcontextrestored", () => { dots.begin(); draw(); });
}

const fail = () => { busy.textContent = "The server does not answer."; };

async function start() {
  dots = new Dots(at("dots")); // first: without it there is nothing to fetch
  dots.whole = () => { stage.dataset.drawn = String(data.x.length); };
  const picture = document.querySelector(".picture");
  picture.hidden = false;
  at("instead").hidden = true;
  choices.querySelector("button").hidden = true;
  busy.textContent = "reading the points …";
  const coloured = choices.by.value === "clusters" ? null
    : fetchPacked(`${stage.dataset.at}/codes?${new URLSearchParams({ of: stage.dataset.of, atlas: stage.dataset.atlas, since: choices.since.value, by: choices.by.value })}`);
  const found = await fetchPacked(`${stage.dataset.at}/points?${new URLSearchParams({ of: stage.dataset.of, atlas: stage.dataset.atlas })}`);
  data = { extent: found.extent, islands: found.islands, x: found.x, y: found.y, island: found.island };
  const places = new Uint16Array(2 * data.x.length);
  for (let point = 0; point < data.x.length; point++) { places[2 * point] = data.x[point]; places[2 * point + 1] = data.y[point]; }
  dots.group("points", { places, slots: new Uint8Array(data.x.length), marks: new Uint8Array(data.x.length) });
  finder = new Finder(data.x, data.y);
  names = new Names(at("names"), found.islands.map(([number, name, , x, y], place_) => ({ number, name, x, y, count: found.counts[place_] })).sort((a, b) => b.count - a.count));
  place();
  readColours();
  codes = await coloured;
  busy.textContent = "";
  explain();
  paint();
  listen();
  keepAddress();
  const more = at("chosen").querySelector("a[data-more]");
  if (more) show(more.dataset.more);
}

start().catch((error) => {
  document.querySelector(".picture").hidden = true;
  at("instead").hidden = false;
  choices.querySelector("button").hidden = false;
  console.info(`no picture: ${error.message}`);
});
