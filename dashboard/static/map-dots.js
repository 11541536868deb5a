// Dots by WebGL 2: a place (2 x uint16), a slot of the palette and a mark (uint8 each) a point; all else is done by the graphics card.
"use strict";

export const SLOTS = 32, FIRST_SIGN = 16;
export const FAINT = 1, CHOSEN = 2; // marks

const VERTEX = `#version 300 es
  in vec2 place; in uint slot; in uint mark;
  uniform vec2 middle, zoom; uniform float size, smallest; uniform vec4 palette[${SLOTS}];
  flat out uint sign; flat out float width; out vec4 tint;
  void main() {
    bool signed = slot > ${FIRST_SIGN}u;
    tint = palette[slot];
    if (mark == ${FAINT}u) tint.a *= .09;
    if (mark == ${CHOSEN}u) tint.a = 1.;
    sign = slot;
    width = signed ? max(size * 1.7, smallest) : size;
    gl_PointSize = width;
    float chance = fract(float(gl_VertexID) * .618034); // which of several signs on one spot is seen: none is always above
    float depth = mark == ${CHOSEN}u ? -.5 : signed && mark == 0u ? -.2 - .2 * chance : mark == ${FAINT}u ? .5 : 0.;
    gl_Position = vec4((place - middle) * zoom, depth, 1);
  }`;
const FRAGMENT = `#version 300 es
  precision mediump float; precision mediump int;
  flat in uint sign; flat in float width; in vec4 tint; out vec4 colour;
  void main() {
    vec2 spot = gl_PointCoord * 2. - 1., far = abs(spot);
    float inside = width < 3. ? 1. : 1. - smoothstep(1. - 2.4 / width, 1., length(spot));
    if (sign == ${FIRST_SIGN + 1}u) inside = min(far.x, far.y) < .3 ? 1. : 0.;
    else if (sign == ${FIRST_SIGN + 2}u) inside = far.x + far.y < 1. ? 1. : 0.;
    else if (sign == ${FIRST_SIGN + 3}u) inside *= step(.5, length(spot));
    else if (sign == ${FIRST_SIGN + 4}u) inside = far.y < .3 ? 1. : 0.;
    float alpha = tint.a * inside;
    if (alpha < .04) discard;
    colour = vec4(tint.rgb * alpha, alpha);
  }`;
const LINE_VERTEX = `#version 300 es
  in vec2 place; uniform vec2 middle, zoom;
  void main() { gl_Position = vec4((place - middle) * zoom, -.6, 1); }`;
const LINE_FRAGMENT = `#version 300 es
  precision mediump float; uniform vec4 tint; out vec4 colour;
  void main() { colour = vec4(tint.rgb * tint.a, tint.a); }`;
const BUSY = 45; // milliseconds of a frame, above which some of the points are left out while the map moves

export class Dots {
  // Throws where there is no WebGL 2.
  constructor(canvas) {
    this.canvas = canvas;
    this.groups = new Map();
    this.palette = new Float32Array(4 * SLOTS);
    this.lines = null;
    this.pace = 0;
    this.whole = () => {}; // called when all points are on the screen
    this.crowded = false; // so many signs that they are drawn small
    this.begin();
  }

  begin() {
    const gl = this.gl = this.canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true, preserveDrawingBuffer: false });
    if (!gl) throw new Error("no WebGL 2");
    this.points = this.program(VERTEX, FRAGMENT);
    this.strokes = this.program(LINE_VERTEX, LINE_FRAGMENT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    for (const group of this.groups.values()) group.buffers = {};
    for (const [name, group] of this.groups) this.group(name, group);
    if (this.lines) this.stroke(this.lines.places, this.lines.tint);
  }

  program(vertex, fragment) {
    const gl = this.gl, made = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made) || "no program");
    return made;
  }

  // A set of points, drawn together: places (2n), slots (n), marks (n). What is left out stays as it was.
  group(name, { places, slots, marks }) {
    const group = this.groups.get(name) ?? { buffers: {} }, gl = this.gl;
    this.groups.set(name, group);
    for (const [key, values] of Object.entries({ places, slots, marks })) {
      if (!values) continue;
      group[key] = values;
      gl.bindBuffer(gl.ARRAY_BUFFER, group.buffers[key] ??= gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    }
  }

  remove(name) { this.groups.delete(name); }

  // Lines between places: x, y, x, y of each; null: none.
  stroke(places, tint) {
    this.lines = places && { places, tint, buffer: this.gl.createBuffer() };
    if (!places) return;
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.lines.buffer);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, places, this.gl.STATIC_DRAW);
  }

  // `view`: x, y of the middle, scale in CSS pixels a unit. `size`: of a dot in CSS pixels. `hasty`: while the map moves.
  draw(view, wide, high, ratio, size, hasty) {
    const gl = this.gl, began = performance.now();
    for (const [side, length] of [["width", wide], ["height", high]]) {
      if (this.canvas[side] !== Math.round(length * ratio)) this.canvas[side] = Math.round(length * ratio);
    }
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const zoom = [2 * view.scale / wide, 2 * view.scale / high], step = hasty ? Math.max(1, Math.ceil(this.pace / BUSY)) : 1;
    gl.useProgram(this.points);
    this.frame(this.points, view, zoom);
    gl.uniform1f(gl.getUniformLocation(this.points, "size"), size * ratio);
    gl.uniform1f(gl.getUniformLocation(this.points, "smallest"), (this.crowded ? 4 : 7) * ratio);
    gl.uniform4fv(gl.getUniformLocation(this.points, "palette"), this.palette);
    for (const group of this.groups.values()) {
      this.attribute(this.points, "place", group.buffers.places, 2, gl.UNSIGNED_SHORT, 4 * step);
      this.attribute(this.points, "slot", group.buffers.slots, 1, gl.UNSIGNED_BYTE, step, true);
      this.attribute(this.points, "mark", group.buffers.marks, 1, gl.UNSIGNED_BYTE, step, true);
      gl.drawArrays(gl.POINTS, 0, Math.floor(group.slots.length / step));
    }
    if (this.lines) this.drawLines(view, zoom);
    if (step === 1) this.time(began);
  }

  // How long the card takes for all points: asked now and then, for to wait for it would hold up the page.
  time(began) {
    const gl = this.gl, done = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    const ask = () => {
      if (gl.clientWaitSync(done, 0, 0) === gl.TIMEOUT_EXPIRED) { setTimeout(ask, 8); return; }
      gl.deleteSync(done);
      this.pace = performance.now() - began;
      this.whole();
    };
    setTimeout(ask, 8);
  }

  drawLines(view, zoom) {
    const gl = this.gl;
    gl.useProgram(this.strokes);
    this.frame(this.strokes, view, zoom);
    gl.uniform4fv(gl.getUniformLocation(this.strokes, "tint"), this.lines.tint);
    for (const place of [1, 2]) gl.disableVertexAttribArray(place);
    this.attribute(this.strokes, "place", this.lines.buffer, 2, gl.UNSIGNED_SHORT, 4);
    gl.drawArrays(gl.LINES, 0, this.lines.places.length / 2);
  }

  frame(program, view, zoom) {
    this.gl.uniform2f(this.gl.getUniformLocation(program, "middle"), view.x, view.y);
    this.gl.uniform2f(this.gl.getUniformLocation(program, "zoom"), ...zoom);
  }

  attribute(program, name, buffer, size, type, stride, whole = false) {
    const gl = this.gl, where = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(where);
    if (whole) gl.vertexAttribIPointer(where, size, type, stride, 0);
    else gl.vertexAttribPointer(where, size, type, false, stride, 0);
  }
}
