'use strict';
// The map: dots by WebGL 2, names on a second canvas above them. All that comes from documents is written by textContent or fillText.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const at = (id) => document.getElementById(id);
  const stage = at('stage'), dots = at('dots'), letters = at('letters'), tip = at('tip');
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const places = new Uint16Array(bytes(data.places));     // x, y of each point, 0 to 65535; y upwards
  const clusters = new Uint16Array(bytes(data.clusters)); // place in data.names, or their number: in none
  const rows = new Uint32Array(bytes(data.rows));         // chunks at each point
  const colourings = data.colourings.map((one) => ({ ...one, codes: one.codes ? new Uint16Array(bytes(one.codes)) : clusters }));
  const count = clusters.length, FULL = 65535, REACH = 14, CELLS = 128;
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const view = { x: FULL / 2, y: FULL / 2, scale: 1 };    // the place in the middle; CSS pixels a unit of places
  let colouring = colourings[0], chosen = -1, gl = null, program = null, buffers = {}, pending = false, fitted = 0;

  const SHADERS = [`#version 300 es
    in vec2 place; in vec4 colour; in float weight;
    uniform vec2 middle, zoom; uniform float size;
    out vec4 tint;
    void main() { tint = colour; gl_Position = vec4((place - middle) * zoom, 0, 1); gl_PointSize = size * weight / 10.; }`,
  `#version 300 es
    precision mediump float;
    in vec4 tint; out vec4 colour;
    void main() {
      float edge = length(gl_PointCoord - .5) * 2.;
      float alpha = tint.a * (1. - smoothstep(.75, 1., edge));
      colour = vec4(tint.rgb * alpha, alpha);
    }`];

  function start() {
    gl = dots.getContext('webgl2', { antialias: false, premultipliedAlpha: true });
    if (!gl) return false;
    program = gl.createProgram();
    buffers = {};
    [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((kind, place) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, SHADERS[place]);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    });
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return false;
    gl.useProgram(program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    attribute('place', places, 2, gl.UNSIGNED_SHORT, false);
    attribute('weight', new Uint8Array(bytes(data.sizes)), 1, gl.UNSIGNED_BYTE, false); // tenths of the common width
    paint();
    return true;
  }

  function attribute(name, values, size, type, normalized) {
    const where = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name] ??= gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(where);
    gl.vertexAttribPointer(where, size, type, normalized, 0, 0);
  }

  const palette = (one) => (dark.matches ? one.dark : one.light).map((colour) => [1, 3, 5].map((from) => parseInt(colour.slice(from, from + 2), 16)));

  function paint() {
    const colours = palette(colouring), values = new Uint8Array(4 * count);
    for (let point = 0; point < count; point++) {
      values.set(colours[colouring.codes[point]], 4 * point);
      values[4 * point + 3] = chosen < 0 ? 200 : clusters[point] === chosen ? 255 : 22;
    }
    attribute('colour', values, 4, gl.UNSIGNED_BYTE, true);
    draw();
  }

  const draw = () => { if (!pending) { pending = true; requestAnimationFrame(render); } };

  function render() {
    pending = false;
    const wide = stage.clientWidth, high = stage.clientHeight, ratio = devicePixelRatio || 1;
    for (const canvas of [dots, letters]) {
      if (canvas.width !== Math.round(wide * ratio)) canvas.width = Math.round(wide * ratio);
      if (canvas.height !== Math.round(high * ratio)) canvas.height = Math.round(high * ratio);
    }
    gl.viewport(0, 0, dots.width, dots.height);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(gl.getUniformLocation(program, 'middle'), view.x, view.y);
    gl.uniform2f(gl.getUniformLocation(program, 'zoom'), 2 * view.scale / wide, 2 * view.scale / high);
    const closeness = Math.sqrt(view.scale / fitted), base = Math.sqrt(wide * high / Math.max(count, 1)) * .62;
    gl.uniform1f(gl.getUniformLocation(program, 'size'), Math.min(18, Math.max(2.2, Math.min(9, base) * closeness)) * ratio);
    gl.drawArrays(gl.POINTS, 0, count);
    write(wide, high, ratio);
  }

  const onScreen = (x, y) => [stage.clientWidth / 2 + (x - view.x) * view.scale, stage.clientHeight / 2 - (y - view.y) * view.scale];
  const onMap = (x, y) => [view.x + (x - stage.clientWidth / 2) / view.scale, view.y - (y - stage.clientHeight / 2) / view.scale];

  function broken(name) {
    return name.split(' ').reduce((lines, word) => {
      if (lines.length && lines.at(-1).length + word.length < 16) lines.push(`${lines.pop()} ${word}`); else lines.push(word);
      return lines;
    }, []);
  }

  function write(wide, high, ratio) {
    const pen = letters.getContext('2d'), style = getComputedStyle(document.documentElement), taken = [];
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    pen.textAlign = 'center';
    pen.textBaseline = 'middle';
    pen.lineJoin = 'round';
    pen.lineWidth = 4;
    pen.strokeStyle = style.getPropertyValue('--paper');
    pen.fillStyle = style.getPropertyValue('--ink');
    const order = data.names.map((_, place) => place);
    if (chosen >= 0) order.unshift(chosen);
    for (const place of order) {
      const one = data.names[place];
      if (one.x === null || (place === chosen && taken.length)) continue;
      const [x, y] = onScreen(one.x, one.y), size = Math.min(15, 10.5 + 4.5 * Math.sqrt(one.share / data.names[0].share));
      if (x < 0 || y < 0 || x > wide || y > high) continue;
      pen.font = `${place === chosen ? 700 : 500} ${size}px system-ui, sans-serif`;
      const lines = broken(one.name), across = Math.max(...lines.map((line) => pen.measureText(line).width)) / 2 + 3, up = lines.length * size * .58 + 2;
      const free = [0, 1.1, -1.1].map((shift) => y + shift * up).find((middle) => x - across >= 0 && x + across <= wide
        && taken.every(([x1, y1, a, u]) => Math.abs(x - x1) > across + a || Math.abs(middle - y1) > up + u));
      if (free === undefined) continue;
      taken.push([x, free, across, up]);
      pen.globalAlpha = chosen < 0 || place === chosen ? 1 : .45;
      lines.forEach((line, row) => {
        const height = free + (row - (lines.length - 1) / 2) * size * 1.08;
        pen.strokeText(line, x, height);
        pen.fillText(line, x, height);
      });
    }
    pen.globalAlpha = 1;
  }

  // Points by the cell of a grid that they lie in, for finding the one under the pointer.
  const starts = new Uint32Array(CELLS * CELLS + 1), members = new Uint32Array(count);
  const cellOf = (point) => (places[2 * point + 1] >> 9) * CELLS + (places[2 * point] >> 9);
  for (let point = 0; point < count; point++) starts[cellOf(point) + 1]++;
  for (let cell = 0; cell < CELLS * CELLS; cell++) starts[cell + 1] += starts[cell];
  const next = starts.slice();
  for (let point = 0; point < count; point++) members[next[cellOf(point)]++] = point;

  function nearest(x, y) {
    const [mx, my] = onMap(x, y), reach = REACH / view.scale, limit = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(value / 512)));
    let best = -1, least = reach * reach;
    for (let row = limit(my - reach); row <= limit(my + reach); row++) {
      for (let cell = row * CELLS + limit(mx - reach); cell <= row * CELLS + limit(mx + reach); cell++) {
        for (let place = starts[cell]; place < starts[cell + 1]; place++) {
          const point = members[place], away = (places[2 * point] - mx) ** 2 + (places[2 * point + 1] - my) ** 2;
          if (away < least) { least = away; best = point; }
        }
      }
    }
    return best;
  }

  function tell(x, y) {
    const point = nearest(x, y);
    tip.hidden = point < 0;
    if (point < 0) return point;
    const [id, cluster, stands] = tip.children, name = data.names[clusters[point]];
    id.textContent = data.ids[point];
    cluster.textContent = name ? name.name : 'in no cluster';
    stands.textContent = `${rows[point].toLocaleString('en')} ${rows[point] === 1 ? 'row' : 'rows'}`;
    tip.lastElementChild.textContent = data.texts ? data.texts[point] : '';
    tip.style.left = `${Math.max(4, Math.min(x + 14, stage.clientWidth - tip.offsetWidth - 6))}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > stage.clientHeight ? Math.max(4, y - tip.offsetHeight - 12) : y + 18}px`;
    return point;
  }

  function choose(cluster) {
    chosen = cluster === chosen ? -1 : cluster;
    document.querySelectorAll('#clusters tbody tr').forEach((row, place) => {
      row.classList.toggle('chosen', place === chosen);
      row.querySelector('button').setAttribute('aria-pressed', String(place === chosen));
      const box = row.closest('.scroll');
      if (place === chosen && box.scrollHeight > box.clientHeight) box.scrollTop = row.offsetTop - box.clientHeight / 3;
    });
    paint();
  }

  function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const [mx, my] = onMap(x, y), scale = Math.max(fitted * .5, Math.min(fitted * 400, view.scale * factor));
    view.x = mx - (mx - view.x) * view.scale / scale;
    view.y = my - (my - view.y) * view.scale / scale;
    view.scale = scale;
    tip.hidden = true;
    draw();
  }

  function move(right, down) {
    view.x = Math.max(0, Math.min(FULL, view.x - right / view.scale));
    view.y = Math.max(0, Math.min(FULL, view.y + down / view.scale));
    tip.hidden = true;
    draw();
  }

  function fit() {
    const [wide, high] = data.extent; // of FULL: both axes have one scale
    fitted = Math.min((stage.clientWidth - 40) / wide, (stage.clientHeight - 40) / high) || 1e-3;
    Object.assign(view, { x: wide / 2, y: high / 2, scale: fitted });
    draw();
  }

  function listen() {
    const fingers = new Map();
    let moved = 0;
    const spot = (event) => { const box = stage.getBoundingClientRect(); return [event.clientX - box.left - 1, event.clientY - box.top - 1]; };
    stage.addEventListener('pointerdown', (event) => { stage.setPointerCapture(event.pointerId); fingers.set(event.pointerId, spot(event)); moved = 0; });
    stage.addEventListener('pointermove', (event) => {
      const here = spot(event), before = fingers.get(event.pointerId);
      if (!before) { tell(...here); return; }
      const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
      moved += Math.abs(here[0] - before[0]) + Math.abs(here[1] - before[1]);
      if (other) {
        const spread = (spot_) => Math.hypot(spot_[0] - other[0], spot_[1] - other[1]) || 1;
        zoom(spread(here) / spread(before), (here[0] + other[0]) / 2, (here[1] + other[1]) / 2);
      } else if (moved > 4) move(here[0] - before[0], here[1] - before[1]);
      fingers.set(event.pointerId, here);
    });
    const lift = (event) => {
      const down = fingers.delete(event.pointerId);
      if (!down || moved > 4 || event.type !== 'pointerup') return;
      const point = tell(...spot(event));
      if (point >= 0 && clusters[point] < data.names.length && clusters[point] !== chosen) choose(clusters[point]);
      else if (point < 0 && chosen >= 0) choose(chosen);
    };
    stage.addEventListener('pointerup', lift);
    stage.addEventListener('pointercancel', lift);
    stage.addEventListener('pointerleave', () => { tip.hidden = true; });
    stage.addEventListener('wheel', (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .0015)), ...spot(event)); }, { passive: false });
    stage.addEventListener('keydown', (event) => {
      const does = { ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
        '+': () => zoom(1.4), '=': () => zoom(1.4), '-': () => zoom(1 / 1.4), 0: fit, Escape: () => { tip.hidden = true; if (chosen >= 0) choose(chosen); } }[event.key];
      if (does && !event.ctrlKey && !event.metaKey) { event.preventDefault(); does(); }
    });
    at('in').addEventListener('click', () => zoom(1.6));
    at('out').addEventListener('click', () => zoom(1 / 1.6));
    at('all').addEventListener('click', fit);
    document.querySelectorAll('#clusters button').forEach((button, place) => button.addEventListener('click', () => choose(place)));
    at('by').addEventListener('change', (event) => { colouring = colourings[event.target.selectedIndex]; explain(); paint(); });
    dark.addEventListener('change', () => { explain(); paint(); });
    new ResizeObserver(() => { if (view.scale === fitted) fit(); else draw(); }).observe(stage);
    dots.addEventListener('webglcontextlost', (event) => event.preventDefault());
    dots.addEventListener('webglcontextrestored', start);
  }

  function swatch(colour) {
    const made = document.createElement('i');
    made.style.background = `rgb(${colour.join(' ')})`;
    return made;
  }

  // What colours mean: in the legend, and before the name of each cluster where they are of clusters.
  function explain() {
    const colours = palette(colouring), whole = palette(colourings[0]);
    at('note').textContent = colouring.note;
    at('legend').replaceChildren(...colouring.labels.flatMap((label, code) => {
      if (!label) return [];
      const item = document.createElement('li');
      item.append(swatch(colours[code]), label);
      return [item];
    }));
    document.querySelectorAll('#clusters button').forEach((button, place) => {
      button.querySelector('i')?.remove();
      if (colouring === colourings[0]) button.prepend(swatch(whole[place]));
    });
  }

  for (const one of colourings) at('by').append(new Option(one.title));
  at('choice').hidden = colourings.length < 2;
  if (!start()) return;
  at('fallback').hidden = true;
  at('hint').hidden = false;
  at('tools').hidden = false;
  explain();
  fit();
  listen();
})();
