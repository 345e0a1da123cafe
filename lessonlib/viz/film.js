// Memory in one piece, step by step (see film.py for the data).

// ---------- state: what lies where in a step ----------

class Tape {
  constructor({ size, steps, regions, wants }) {
    const named = ([first, end, start, length, label, tokens]) => ({ first, end, start, length, label, tokens });
    this.size = size;
    this.steps = steps;
    this.regions = regions.map(named);
    this.wants = wants.map(([first, end, length, label]) => ({ first, end, length, label }));
  }

  /** {held, gone: pieces just given back, holes, free, largest, tokens, want} in one step. */
  at(step) {
    const held = this.regions.filter(({ first, end }) => first <= step && step < end).sort((a, b) => a.start - b.start);
    const gone = this.regions.filter(({ end }) => end === step);
    const holes = [];
    let place = 0;
    for (const { start, length } of [...held, { start: this.size, length: 0 }]) {
      if (start > place) holes.push({ start: place, length: start - place });
      place = Math.max(place, start + length);
    }
    const free = holes.reduce((sum, { length }) => sum + length, 0);
    const largest = holes.reduce((best, hole) => (hole.length > best.length ? hole : best), { start: 0, length: 0 });
    const tokens = held.reduce((sum, region) => sum + region.tokens[step - region.first], 0);
    const want = this.wants.find(({ first, end }) => first <= step && step < end);
    return { step, held, gone, holes, free, largest, tokens, want };
  }
}

function filmWords(tape, now) {
  const parts = [
    `Step ${whole(now.step)} of ${whole(tape.steps)}. ${countOf(now.held.length, "piece")} set aside, ${whole(tape.size - now.free)} of ${whole(tape.size)} tokens; ${whole(now.tokens)} are used.`,
    now.holes.length === 1 ? `${whole(now.free)} free in one hole.` : `${whole(now.free)} free in ${whole(now.holes.length)} holes, the largest ${whole(now.largest.length)}.`,
  ];
  if (now.want) parts.push(`${now.want.label} wants ${whole(now.want.length)} in one piece and waits.`);
  return parts.join(" ");
}

// ---------- picture: rows of memory ----------

const TAPE_ROWS = 6;
const TAPE_ROW = 30;
const TAPE_GAP = 5;
const WANT_SIGN = 22;

class TapePicture {
  constructor(canvas) {
    this.canvas = canvas;
    this.ctx = canvas.getContext("2d");
  }

  layout(tape, width, colors) {
    Object.assign(this, { tape, width, colors });
    this.perRow = Math.ceil(tape.size / TAPE_ROWS);
    this.wantTop = TAPE_ROWS * (TAPE_ROW + TAPE_GAP) + 4;
    const rows = Math.ceil(Math.max(0, ...tape.wants.map(({ length }) => length)) / this.perRow);
    this.height = this.wantTop + (rows ? WANT_SIGN + rows * (TAPE_ROW + TAPE_GAP) : 0);
    this.ratio = size(this.canvas, width, this.height);
    this.hole = hatch(this.ctx, colors.lobby, colors.idle);
  }

  /** The rectangles of a piece of memory, one a row it touches: {x, y, wide, tall}. */
  #parts(start, length) {
    const parts = [];
    const scale = (this.width - 2) / this.perRow;
    for (let from = start; from < start + length;) {
      const row = Math.floor(from / this.perRow);
      const to = Math.min(start + length, (row + 1) * this.perRow);
      const y = 1 + row * (TAPE_ROW + TAPE_GAP);
      parts.push({ x: 1 + (from - row * this.perRow) * scale, y, wide: (to - from) * scale, tall: TAPE_ROW });
      from = to;
    }
    return parts;
  }

  #fill(start, length, style) {
    this.ctx.fillStyle = style;
    for (const { x, y, wide, tall } of this.#parts(start, length)) this.ctx.fillRect(x, y, wide, tall);
  }

  #outline(start, length, style, thick, dash = []) {
    const { ctx } = this;
    ctx.strokeStyle = style;
    ctx.lineWidth = thick;
    ctx.setLineDash(dash);
    const inset = thick / 2;
    for (const { x, y, wide, tall } of this.#parts(start, length)) {
      ctx.strokeRect(x + inset, y + inset, Math.max(0, wide - thick), tall - thick);
    }
    ctx.setLineDash([]);
  }

  draw(now) {
    const { ctx, colors, tape } = this;
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    ctx.clearRect(0, 0, this.width, this.height);
    this.#fill(0, tape.size, this.hole);
    for (const region of now.held) this.#region(region, now.step);
    for (const { start, length } of now.gone) this.#outline(start, length, colors.finished, 2, [4, 3]);
    if (!now.want) return;
    if (now.largest.length) this.#outline(now.largest.start, now.largest.length, colors.ink, 2);
    this.#want(now);
  }

  #region({ start, length, label, first, tokens }, step) {
    const { ctx, colors } = this;
    this.#fill(start, length, colors.surface);
    ctx.globalAlpha = 0.28;
    this.#fill(start, length, colors.decode);
    ctx.globalAlpha = 1;
    this.#fill(start, tokens[step - first], colors.decode);
    this.#outline(start, length, first === step ? colors.ink : colors.decode, first === step ? 2 : 1);
    const parts = this.#parts(start, length);
    const { x, y, wide } = parts.reduce((best, part) => (part.wide > best.wide ? part : best));
    ctx.font = font(10.5, 600);
    ctx.textAlign = "left";
    if (wide < 16) return;
    const words = clip(ctx, label, wide - 8);
    ctx.lineWidth = 3;
    ctx.lineJoin = "round";
    ctx.strokeStyle = colors.surface;
    ctx.strokeText(words, x + 4, y + TAPE_ROW / 2 + 4);
    ctx.fillStyle = colors.ink;
    ctx.fillText(words, x + 4, y + TAPE_ROW / 2 + 4);
  }

  /** Who waits, and below that the piece it needs, in the scale of the rows. */
  #want({ want, free, largest }) {
    const { ctx, colors, wantTop } = this;
    ctx.font = font(11.5, 600);
    ctx.textAlign = "left";
    ctx.fillStyle = colors.preempted;
    const words = `${want.label} wants ${whole(want.length)}: ${whole(free)} are free, ${whole(largest.length)} in one piece`;
    ctx.fillText(clip(ctx, words, this.width - 4), 2, wantTop + 14);
    ctx.save();
    ctx.translate(0, wantTop + WANT_SIGN);
    ctx.globalAlpha = 0.18;
    this.#fill(0, want.length, colors.preempted);
    ctx.globalAlpha = 1;
    this.#outline(0, want.length, colors.preempted, 2);
    ctx.restore();
  }
}

// ---------- page: the film's player ----------

const FILM_LEGEND = [["tokens", "decode", 1], ["set aside", "decode", 0.28], ["hole", null, 1]];

class FilmPlayer extends Reel {
  constructor(model, el) {
    super(model, el, "Memory film");
    this.canvas = element("canvas", { role: "img", "aria-label": "Memory, row by row: what is set aside, used and free" });
    this.root.append(this.canvas, this.slider, this.controls, this.caption, this.legend);
    this.picture = new TapePicture(this.canvas);
    this.listen({ "change:_film": () => this.load() });
    this.load();
  }

  load() {
    this.tape = new Tape(this.model.get("_film"));
    this.wind(new Clock([{ clock: "steps", times: Float64Array.from({ length: this.tape.steps + 1 }, (_, i) => i) }]));
  }

  dress() {
    const { colors } = this;
    this.picture.layout(this.tape, this.width, colors);
    this.legend.replaceChildren(...FILM_LEGEND.map(([words, color, alpha]) => {
      const mark = element("canvas", { "aria-hidden": "true" });
      const ratio = size(mark, 16, 14);
      const ctx = mark.getContext("2d");
      ctx.scale(ratio, ratio);
      ctx.globalAlpha = alpha;
      ctx.fillStyle = color ? colors[color] : hatch(ctx, colors.lobby, colors.idle);
      ctx.fillRect(1, 1, 14, 12);
      return element("span", {}, mark, document.createTextNode(words));
    }), element("span", { class: "elevator-hint", text: "bold outline: just taken; green dashes: just given back" }));
  }

  draw() {
    this.picture.draw(this.tape.at(this.tick));
  }

  words() {
    return filmWords(this.tape, this.tape.at(this.tick));
  }
}

function render({ model, el }) {
  const player = new FilmPlayer(model, el);
  return () => player.close();
}

export default { render };
