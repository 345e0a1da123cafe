// Memory in one piece, step by step (see film.py for the data). This follows the elevator's script, without its
// last lines, and uses its elements, icons, colors and patterns. Sections: state, picture, page.

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
const WANT_TALL = 58;

class TapePicture {
  constructor(canvas) {
    this.canvas = canvas;
    this.ctx = canvas.getContext("2d");
  }

  layout(tape, width, colors) {
    Object.assign(this, { tape, width, colors });
    this.perRow = Math.ceil(tape.size / TAPE_ROWS);
    this.wantTop = TAPE_ROWS * (TAPE_ROW + TAPE_GAP) + 4;
    this.height = this.wantTop + (tape.wants.length ? WANT_TALL : 0);
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
    const [{ x, y, wide }] = this.#parts(start, length);
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
    const wide = Math.min(this.width - 4, ((this.width - 2) * want.length) / this.perRow);
    ctx.strokeStyle = colors.preempted;
    ctx.lineWidth = 2;
    ctx.strokeRect(2, wantTop + 22, wide, TAPE_ROW - 2);
    ctx.globalAlpha = 0.18;
    ctx.fillRect(2, wantTop + 22, wide, TAPE_ROW - 2);
    ctx.globalAlpha = 1;
  }
}

// ---------- page: the film's player ----------

class FilmPlayer {
  constructor(model, el) {
    this.model = model;
    this.playing = false;
    this.#build(el);
    this.picture = new TapePicture(this.canvas);
    this.#listen();
    this.load();
  }

  #build(el) {
    this.root = element("div", { class: "elevator", tabindex: "0", role: "group", "data-lm-suppress-shortcuts": "true" });
    this.title = element("div", { class: "elevator-title" });
    this.canvas = element("canvas", { role: "img", "aria-label": "Memory, row by row: what is set aside, used and free" });
    this.slider = element("input", { type: "range", min: "0", step: "1", value: "0", "aria-label": "Step" });
    this.caption = element("div", { class: "elevator-caption", "aria-live": "polite" });
    this.legend = element("div", { class: "elevator-legend" });
    const button = (name, label, act) => {
      const node = element("button", { type: "button", "aria-label": label, title: label }, icon(ICONS[name]));
      node.addEventListener("click", act);
      return node;
    };
    this.playButton = button("play", "Play", () => this.toggle());
    this.place = element("span", { class: "elevator-place" });
    const controls = element(
      "div", { class: "elevator-controls" },
      button("start", "To the start", () => this.stop(0)),
      button("back", "One step back", () => this.stop(this.step - 1)),
      this.playButton,
      button("forward", "One step forward", () => this.stop(this.step + 1)),
      button("end", "To the end", () => this.stop(this.tape.steps)),
      this.place,
    );
    this.root.append(this.title, this.canvas, this.slider, controls, this.caption, this.legend);
    el.append(this.root);
  }

  #listen() {
    this.root.addEventListener("keydown", (event) => this.#key(event));
    this.slider.addEventListener("input", () => this.stop(Number(this.slider.value)));
    this.resizes = new ResizeObserver(() => this.#fit());
    this.resizes.observe(this.root);
    this.onTheme = () => { this.width = 0; this.#fit(); };
    this.themes = new MutationObserver(this.onTheme);
    this.themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.onTheme);
    this.handlers = {
      "change:_film": () => this.load(),
      "change:title": () => this.#label(),
      "change:step": () => { if (this.model.get("step") !== this.step) this.stop(this.model.get("step")); },
    };
    for (const [name, handler] of Object.entries(this.handlers)) this.model.on(name, handler);
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const act = {
      ArrowLeft: () => this.stop(this.step - 1),
      ArrowRight: () => this.stop(this.step + 1),
      Home: () => this.stop(0),
      End: () => this.stop(this.tape.steps),
      " ": () => this.toggle(),
    }[event.key];
    if (!act || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  load() {
    this.tape = new Tape(this.model.get("_film"));
    this.slider.max = String(this.tape.steps);
    this.step = Math.min(this.model.get("step"), this.tape.steps);
    this.#label();
    this.width = 0;
    this.#fit();
  }

  #label() {
    const title = this.model.get("title");
    this.title.textContent = title;
    this.title.hidden = !title;
    this.root.setAttribute("aria-label", `${title || "Memory film"}. Arrow keys step, space plays, home and end jump.`);
  }

  #fit() {
    const width = Math.floor(this.root.clientWidth) - 6;
    if (width < 40 || width === this.width) return;
    this.width = width;
    this.root.dataset.theme = isDark() ? "dark" : "light";
    this.colors = readColors(this.root);
    this.picture.layout(this.tape, width, this.colors);
    this.#drawLegend();
    this.show();
  }

  #drawLegend() {
    const { colors } = this;
    const entries = [["tokens", colors.decode, 1], ["set aside", colors.decode, 0.28], ["hole", null, 1]];
    this.legend.replaceChildren(...entries.map(([words, color, alpha]) => {
      const mark = element("canvas", { "aria-hidden": "true" });
      const ratio = size(mark, 16, 14);
      const ctx = mark.getContext("2d");
      ctx.scale(ratio, ratio);
      ctx.globalAlpha = alpha;
      ctx.fillStyle = color || hatch(ctx, colors.lobby, colors.idle);
      ctx.fillRect(1, 1, 14, 12);
      return element("span", {}, mark, document.createTextNode(words));
    }), element("span", { class: "elevator-hint", text: "dark outline: just taken; green dashes: just given back" }));
  }

  show() {
    if (!this.width) return;
    const now = this.tape.at(this.step);
    this.picture.draw(now);
    this.slider.value = String(this.step);
    this.place.textContent = `step ${whole(this.step)} of ${whole(this.tape.steps)}`;
    this.slider.setAttribute("aria-valuetext", this.place.textContent);
    clearTimeout(this.saying);
    if (!this.playing) this.saying = setTimeout(() => { this.caption.textContent = filmWords(this.tape, now); }, 150);
  }

  /** Stand still at a step and tell Python. */
  stop(step) {
    this.#setPlaying(false);
    this.step = Math.max(0, Math.min(this.tape.steps, step));
    this.show();
    clearTimeout(this.syncing);
    this.syncing = setTimeout(() => this.#save(), SYNC_AFTER);
  }

  /** Where no kernel listens any more the picture goes on by itself. */
  #save() {
    this.model.set("step", this.step);
    try {
      this.model.save_changes();
    } catch (error) {
      console.debug("film: nobody to tell", error);
    }
  }

  toggle() {
    if (this.playing) { this.stop(this.step); return; }
    if (this.step >= this.tape.steps) this.step = 0;
    this.#setPlaying(true);
    this.timer = setInterval(() => {
      if (this.step >= this.tape.steps) this.stop(this.tape.steps);
      else { this.step += 1; this.show(); }
    }, 1000 / this.model.get("speed"));
  }

  #setPlaying(playing) {
    clearInterval(this.timer);
    this.playing = playing;
    const label = playing ? "Pause" : "Play";
    this.playButton.replaceChildren(icon(playing ? ICONS.pause : ICONS.play));
    this.playButton.setAttribute("aria-label", label);
    this.playButton.title = label;
  }

  close() {
    clearInterval(this.timer);
    clearTimeout(this.saying);
    clearTimeout(this.syncing);
    this.resizes.disconnect();
    this.themes.disconnect();
    this.scheme.removeEventListener("change", this.onTheme);
    for (const [name, handler] of Object.entries(this.handlers)) this.model.off(name, handler);
  }
}

function render({ model, el }) {
  const player = new FilmPlayer(model, el);
  return () => player.close();
}

export default { render };
