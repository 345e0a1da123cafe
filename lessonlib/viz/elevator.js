// The elevator: plays packed Traces (see ride.py for the columns). Python sends them once; every frame is worked
// out here, so playing sends nothing back. Sections: rides, clock, colors, figures, memory, building, gantt, words,
// page.

// ---------- rides: who sits where at a step ----------

const KIND = { ARRIVE: 0, PREEMPT: 2, PREFILL: 4, DECODE: 5, FINISH: 6, ABORT: 7 };
const STAY = ["slot", "request", "first", "end", "how", "base"];
const SPAN = ["stay", "kind", "first", "end", "before", "tokens"];
const WAIT = ["request", "first", "end", "why"];
const STEP = ["waiting", "running"];
const REQUEST = ["goal", "prompt"];
const STAY_BLOCKS = ["blocks", "cached"];
const SPAN_BLOCKS = ["blocks"];
const STEP_BLOCKS = ["free"];

const bytesOf = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);

/** Bytes of an int32 table -> its columns by name, and `rows`. */
function table(view, names) {
  const all = new Int32Array(bytesOf(view));
  const rows = all.length / names.length;
  const columns = { rows };
  names.forEach((name, i) => { columns[name] = all.subarray(i * rows, (i + 1) * rows); });
  return columns;
}

/** First place in [low, high) of ascending `values` that holds more than `wanted`. */
function after(values, wanted, low = 0, high = values.length) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= wanted) low = middle + 1; else high = middle;
  }
  return low;
}

/** Where each of `count` groups starts in the ascending `groups`; one more entry for the end. */
function offsets(groups, count) {
  const starts = new Int32Array(count + 1);
  for (const group of groups) starts[group + 1] += 1;
  for (let i = 0; i < count; i++) starts[i + 1] += starts[i];
  return starts;
}

class Ride {
  constructor(wire) {
    this.name = wire.name;
    this.slots = wire.slots;
    this.numSteps = wire.num_steps;
    this.clock = wire.clock;
    this.labels = wire.labels;
    this.stays = table(wire.stays, STAY);
    this.spans = table(wire.spans, SPAN);
    this.waits = table(wire.waits, WAIT);
    this.steps = table(wire.steps, STEP);
    this.requests = table(wire.requests, REQUEST);
    this.blockSize = wire.block_size;
    this.capacity = wire.capacity;
    this.stayBlocks = table(wire.stay_blocks, STAY_BLOCKS);
    this.spanBlocks = table(wire.span_blocks, SPAN_BLOCKS);
    this.stepBlocks = table(wire.step_blocks, STEP_BLOCKS);
    this.times = wire.times.byteLength
      ? new Float64Array(bytesOf(wire.times))
      : Float64Array.from({ length: this.numSteps + 1 }, (_, i) => i);
    this.duration = this.times[this.numSteps];
    this.stayStart = offsets(this.stays.slot, this.slots);
    this.spanStart = offsets(this.spans.stay, this.stays.rows);
    this.tokensThrough = this.#countTokens();
    this.prefillOfStay = this.#countPrefill();
    this.finishes = Int32Array.from(this.stays.end.filter((_, i) => this.stays.how[i] === KIND.FINISH)).sort();
    this.byEnd = Int32Array.from(this.stays.end.keys()).sort((a, b) => this.stays.end[a] - this.stays.end[b]);
    this.endsInOrder = this.byEnd.map((stay) => this.stays.end[stay]);
    this.boardings = Int32Array.from(this.stays.first).sort();
    this.stalls = this.#stalls();
  }

  /** Output tokens given up to the end of each step. */
  #countTokens() {
    const { kind, first, end, rows } = this.spans;
    const change = new Float64Array(this.numSteps + 1);
    for (let i = 0; i < rows; i++) {
      if (kind[i] === KIND.DECODE) { change[first[i]] += 1; change[end[i]] -= 1; }
    }
    let rate = 0;
    let total = 0;
    return change.map((delta) => (total += rate += delta));
  }

  #countPrefill() {
    const { kind, stay, tokens, rows } = this.spans;
    const total = new Int32Array(this.stays.rows);
    for (let i = 0; i < rows; i++) if (kind[i] === KIND.PREFILL) total[stay[i]] += tokens[i];
    return total;
  }

  /** Whether anyone is ever on board without work. */
  #stalls() {
    const { stays, spans } = this;
    for (let stay = 0; stay < stays.rows; stay++) {
      let worked = stays.first[stay];
      for (let i = this.spanStart[stay]; i < this.spanStart[stay + 1] && spans.first[i] <= worked; i++) {
        worked = Math.max(worked, spans.end[i]);
      }
      if (worked < stays.end[stay]) return true;
    }
    return false;
  }

  /** The stay on board in `slot` during `step`, or -1. */
  stayAt(slot, step) {
    const stay = after(this.stays.first, step, this.stayStart[slot], this.stayStart[slot + 1]) - 1;
    return stay >= this.stayStart[slot] && step < this.stays.end[stay] ? stay : -1;
  }

  /** What the rider of a stay does in `step`: phase, tokens done by its end, progress 0…1 at fraction `part` of it. */
  rider(stay, step, part = 1) {
    const { spans, stays } = this;
    const request = stays.request[stay];
    const goal = this.requests.goal[request];
    const start = this.spanStart[stay];
    const last = after(spans.first, step, start, this.spanStart[stay + 1]) - 1;
    let phase = "stalled";
    let done = stays.base[stay];
    let progress = goal ? done / goal : 0;
    if (last >= start) {
      const working = step < spans.end[last];
      const twin = last > start && spans.first[last - 1] === step ? last - 1 : last;
      const reading = working && spans.kind[twin] === KIND.PREFILL;
      if (working) phase = reading ? "prefill" : "decode";
      if (spans.kind[last] === KIND.DECODE) {
        const given = Math.min(step - spans.first[last] + 1, spans.tokens[last]);
        done = spans.before[last] + given;
        progress = goal ? (done - (working ? 1 - part : 0)) / goal : 0;
      }
      if (reading) progress = (spans.before[twin] + spans.tokens[twin] * part) / (this.prefillOfStay[stay] || 1);
    }
    if (step === stays.end[stay] - 1 && stays.how[stay] === KIND.FINISH) phase = "finished";
    return { request, phase, done, goal, progress };
  }

  /** Up to `most` of those who wait in `step`, the next to board first: {request, why}. */
  queue(step, most) {
    const found = [];
    const { request, first, end, why, rows } = this.waits;
    for (let i = after(end, step); i < rows && found.length < most; i++) {
      if (first[i] <= step) found.push({ request: request[i], why: why[i] });
    }
    return found;
  }

  /** Counts at a step; at `numSteps` everyone is home. */
  counts(step) {
    const over = step >= this.numSteps;
    const last = Math.min(step, this.numSteps - 1);
    const tokens = last < 0 ? 0 : this.tokensThrough[last];
    return {
      over,
      running: over || step < 0 ? 0 : this.steps.running[step],
      waiting: over || step < 0 ? 0 : this.steps.waiting[step],
      home: after(this.finishes, step),
      tokens,
      utilization: last < 0 ? 0 : tokens / (this.slots * (last + 1)),
    };
  }

  /** Stays that are off board from `step` on, having been on board the step before. */
  leavers(step) {
    return this.byEnd.subarray(after(this.endsInOrder, step - 1), after(this.endsInOrder, step));
  }

  boardedAt(step) {
    return after(this.boardings, step) - after(this.boardings, step - 1);
  }

  nameOf(request) {
    return `rider ${request}`;
  }

  /** What stands over the door when nothing moves any more. */
  get rest() {
    return this.numSteps ? "all home" : "no steps";
  }

  // ----- memory; what is counted and how stands in ride.py, where `Ride.memory` does the same -----

  /** Blocks in the table of a stay in `step`. A run of decode takes one when what it stores fills the last. */
  blocksOf(stay, step) {
    const { spans, stays } = this;
    const start = this.spanStart[stay];
    const last = after(spans.first, step, start, this.spanStart[stay + 1]) - 1;
    if (last < start) return this.stayBlocks.blocks[stay];
    const most = this.spanBlocks.blocks[last];
    if (spans.kind[last] !== KIND.DECODE) return most;
    const earlier = last > start ? this.spanBlocks.blocks[last - 1] : this.stayBlocks.blocks[stay];
    const prompt = Math.max(1, this.requests.prompt[stays.request[stay]]);
    const stored = prompt + spans.before[last] + Math.min(step - spans.first[last], spans.tokens[last] - 1);
    return Math.min(most, Math.max(earlier, Math.ceil(stored / this.blockSize)));
  }

  /** The blocks in `step`: {held, free, shared, saved, other, owners: [{stay, slot, table, own}], lost}. */
  memory(step) {
    if (this.floor?.step === step) return this.floor;
    const over = step < 0 || step >= this.numSteps;
    const owners = over ? [] : this.#owners(step);
    const free = over ? this.capacity : this.stepBlocks.free[step];
    const held = this.capacity - free;
    const sum = owners.reduce((total, owner) => total + owner.table, 0);
    const saved = Math.max(0, sum - held);
    const shared = Math.min(held, sharedBlocks(owners, saved));
    shareOut(owners, shared, saved + shared);
    const lost = [...this.leavers(step)]
      .filter((stay) => this.stays.how[stay] === KIND.PREEMPT && this.stays.first[stay] < step)
      .map((stay) => ({ request: this.stays.request[stay], blocks: this.blocksOf(stay, step - 1) }));
    this.floor = { step, held, free, shared, saved, other: Math.max(0, held - sum), owners, lost };
    return this.floor;
  }

  #owners(step) {
    const owners = [];
    for (let slot = 0; slot < this.slots; slot++) {
      const stay = this.stayAt(slot, step);
      if (stay < 0) continue;
      const blocks = this.blocksOf(stay, step);
      const found = Math.min(this.stayBlocks.cached[stay], blocks);
      owners.push({ stay, slot, first: this.stays.first[stay], table: blocks, found, own: blocks });
    }
    return owners;
  }
}

/** How many blocks have more than one holder. */
function sharedBlocks(owners, saved) {
  const found = owners.map((owner) => owner.found).filter(Boolean);
  if (!saved || !found.length) return 0;
  return Math.min(saved, Math.max(Math.min(...found), Math.ceil(saved / found.length)));
}

/** Each table less what it has in common: first of those who found a prefix, then of who first had it. */
function shareOut(owners, shared, drawnOnce) {
  const finders = owners.filter((owner) => owner.found);
  const others = owners.filter((owner) => !owner.found).sort((a, b) => a.first - b.first);
  const take = (owner, limit) => {
    const taken = Math.min(limit, owner.own, drawnOnce);
    owner.own -= taken;
    drawnOnce -= taken;
  };
  finders.forEach((owner) => take(owner, owner.found));
  others.forEach((owner) => take(owner, shared));
  owners.forEach((owner) => take(owner, owner.table));
}

// ---------- clock: one ruler for all rides ----------

/** Ticks are every moment at which a step of any ride starts, then the end of the longest. */
class Clock {
  constructor(rides) {
    const shared = rides.every((ride) => ride.clock === rides[0].clock);
    this.unit = shared && rides.length ? rides[0].clock : "steps";
    const timesOf = (ride) => (shared ? ride.times : Float64Array.from(ride.times.keys()));
    this.rideTimes = rides.map(timesOf);
    this.times = this.#union(this.rideTimes);
    this.last = this.times.length - 1;
    this.end = this.times[this.last];
    this.stepOf = this.rideTimes.map((times) => this.#stepsAt(times));
  }

  #union(lists) {
    if (!lists.length) return new Float64Array(1);
    const all = new Float64Array(lists.reduce((sum, list) => sum + list.length, 0));
    let place = 0;
    for (const list of lists) { all.set(list, place); place += list.length; }
    all.sort();
    return all.filter((time, i) => i === 0 || time !== all[i - 1]);
  }

  #stepsAt(times) {
    const steps = new Int32Array(this.times.length);
    let step = 0;
    this.times.forEach((time, tick) => {
      while (step + 1 < times.length && times[step + 1] <= time) step += 1;
      steps[tick] = step;
    });
    return steps;
  }

  /** Time at a position between ticks. */
  at(position) {
    const tick = Math.min(Math.floor(position), this.last);
    const next = Math.min(tick + 1, this.last);
    return this.times[tick] + (this.times[next] - this.times[tick]) * (position - tick);
  }

  /** The tick that a time falls in. */
  tickAt(time) {
    return Math.max(0, after(this.times, time) - 1);
  }
}

// ---------- colors: read from the style sheet, so that themes stay there ----------

const COLORS = [
  "ink", "ink-soft", "surface", "prefill", "decode", "preempted", "finished", "shared", "free", "idle",
  "facade", "facade-edge", "window", "shaft", "car", "slot", "sky", "street", "lobby",
];

function readColors(root) {
  const style = getComputedStyle(root);
  return Object.fromEntries(COLORS.map((name) => [name, style.getPropertyValue(`--elevator-${name}`).trim()]));
}

function isDark() {
  const body = document.body;
  if (body.dataset.jpThemeLight !== undefined) return body.dataset.jpThemeLight === "false";
  if (body.classList.contains("vscode-dark")) return true;
  if (body.classList.contains("vscode-light")) return false;
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** A small tile of slanted lines: what idles. */
function hatch(ctx, ground, line, slope = 1) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 12;
  const pen = tile.getContext("2d");
  pen.fillStyle = ground;
  pen.fillRect(0, 0, 12, 12);
  pen.strokeStyle = line;
  pen.lineWidth = 1.6;
  pen.beginPath();
  for (const shift of [-6, 0, 6, 12]) {
    pen.moveTo(shift, slope > 0 ? 12 : 0);
    pen.lineTo(shift + 12, slope > 0 ? 0 : 12);
  }
  pen.stroke();
  const pattern = ctx.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(0.5));
  return pattern;
}

const font = (size, weight = 400) => `${weight} ${size}px system-ui, sans-serif`;
const whole = (number) => Math.round(number).toLocaleString("en-US");
const countOf = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;
const percent = (share) => `${(100 * share).toFixed(1)}%`;

// ---------- figures: the riders ----------

function bodyPath(ctx, phase, x, top, width, height) {
  ctx.beginPath();
  if (phase === "prefill") {
    ctx.rect(x - width / 2, top, width, height);
  } else if (phase === "preempted") {
    ctx.moveTo(x, top);
    ctx.lineTo(x + width / 2, top + height);
    ctx.lineTo(x - width / 2, top + height);
    ctx.closePath();
  } else {
    const round = width / 2;
    ctx.roundRect(x - width / 2, top, width, height, [round, round, round * 0.5, round * 0.5]);
  }
}

/** A rider standing at (x, base): body shape and color by phase, filled from the feet up by progress. */
function drawFigure(ctx, colors, x, base, height, phase, progress) {
  const color = { stalled: colors["ink-soft"], waiting: colors["ink-soft"] }[phase] || colors[phase];
  const head = height * 0.19;
  const width = height * 0.56;
  const bodyHeight = height * 0.6;
  const top = base - bodyHeight;
  ctx.lineWidth = Math.max(1, height * 0.055);
  ctx.strokeStyle = ctx.fillStyle = color;
  ctx.beginPath();
  ctx.arc(x, base - height + head, head, 0, 2 * Math.PI);
  ctx.fill();
  bodyPath(ctx, phase, x, top, width, bodyHeight);
  ctx.fillStyle = colors.surface;
  ctx.fill();
  ctx.save();
  ctx.clip();
  ctx.fillStyle = color;
  const filled = phase === "finished" || phase === "preempted" ? 1 : phase === "waiting" ? 0 : progress;
  ctx.fillRect(x - width / 2, base - bodyHeight * filled, width, bodyHeight * filled);
  if (phase === "prefill") drawPages(ctx, colors, x, top, width, bodyHeight);
  ctx.restore();
  bodyPath(ctx, phase, x, top, width, bodyHeight);
  ctx.stroke();
  if (phase === "finished") drawCheck(ctx, x, base - bodyHeight * 0.48, width * 0.3);
}

/** Lines across a prefill body: it reads. */
function drawPages(ctx, colors, x, top, width, height) {
  ctx.strokeStyle = colors.prefill;
  ctx.beginPath();
  for (let line = 1; line < 4; line++) {
    ctx.moveTo(x - width / 2, top + (height * line) / 4);
    ctx.lineTo(x + width / 2, top + (height * line) / 4);
  }
  ctx.stroke();
}

function drawCheck(ctx, x, y, size) {
  ctx.strokeStyle = "#fff";
  ctx.lineWidth = Math.max(1.2, size * 0.45);
  ctx.beginPath();
  ctx.moveTo(x - size, y);
  ctx.lineTo(x - size * 0.2, y + size * 0.8);
  ctx.lineTo(x + size, y - size * 0.8);
  ctx.stroke();
}

// ---------- memory: the floor below the lobby, a cell a block ----------

const BLOCKS_TO = 400;
const MEMORY_SIGN = 17;
const MEMORY_TALL = 64;
const BAR_TALL = 24;

/** How the blocks lie in a floor of a given width: level of detail, columns, size of a cell, height with its sign. */
function memoryPlan(capacity, width) {
  const inner = width - 20;
  for (let cell = 20; cell >= 5 && capacity <= BLOCKS_TO; cell--) {
    const columns = Math.floor(inner / cell);
    const rows = Math.ceil(capacity / columns);
    if (rows * cell <= MEMORY_TALL) {
      return { level: "blocks", columns, rows, cell, inner, height: MEMORY_SIGN + rows * cell + 9 };
    }
  }
  return { level: "bar", inner, height: MEMORY_SIGN + BAR_TALL + 9 };
}

/** The pool in order: shared blocks, each rider's in order of slot, those of nobody on board, free ones. */
function blockRuns(memory) {
  const lost = Math.min(memory.free, memory.lost.reduce((sum, { blocks }) => sum + blocks, 0));
  return [
    { kind: "shared", count: memory.shared },
    ...memory.owners.map((owner) => ({ kind: "own", count: owner.own, owner })),
    { kind: "other", count: memory.other },
    { kind: "lost", count: lost },
    { kind: "free", count: memory.free - lost },
  ].filter(({ count }) => count > 0);
}

/** One block: a square, filled where held; round where shared; a wedge in it where it was just lost. */
function drawBlock(ctx, colors, kind, x, y, side, color) {
  ctx.lineWidth = 1;
  if (kind === "shared") {
    ctx.fillStyle = colors.shared;
    ctx.beginPath();
    ctx.arc(x + side / 2, y + side / 2, side / 2, 0, 2 * Math.PI);
    ctx.fill();
  } else if (kind === "own" || kind === "other") {
    ctx.fillStyle = color || colors["ink-soft"];
    ctx.fillRect(x, y, side, side);
  } else {
    ctx.strokeStyle = kind === "lost" ? colors.preempted : colors.free;
    ctx.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
  }
  if (kind === "lost") {
    ctx.fillStyle = colors.preempted;
    ctx.beginPath();
    ctx.moveTo(x + side / 2, y + side * 0.25);
    ctx.lineTo(x + side * 0.75, y + side * 0.72);
    ctx.lineTo(x + side * 0.25, y + side * 0.72);
    ctx.fill();
  }
}

/** The memory floor of one ride: its plan, and how it looks in one step. */
class MemoryFloor {
  constructor(ride, x, width, top) {
    Object.assign(this, { ride, x, width, top }, memoryPlan(ride.capacity, width));
    this.left = x + (width - (this.level === "blocks" ? this.columns * this.cell : this.inner)) / 2;
    this.cellsTop = top + MEMORY_SIGN + 2;
  }

  /** The walls, which never change. */
  walls(ctx, colors) {
    ctx.fillStyle = colors.lobby;
    ctx.strokeStyle = colors["facade-edge"];
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.roundRect(this.x, this.top, this.width, this.height, [0, 0, 5, 5]);
    ctx.fill();
    ctx.stroke();
  }

  /** `slot`: the one pointed at, or -1. */
  draw(ctx, colors, step, slot) {
    const memory = this.ride.memory(step);
    this.#sign(ctx, colors, memory);
    let place = 0;
    for (const run of blockRuns(memory)) {
      const chosen = run.owner?.slot === slot;
      const read = run.kind === "shared" && memory.owners.some((owner) => owner.slot === slot && owner.own < owner.table);
      const color = run.owner && this.#color(colors, run.owner.stay, step);
      ctx.globalAlpha = slot < 0 || chosen || read ? 1 : 0.4;
      if (this.level === "blocks") this.#cells(ctx, colors, run, place, color, chosen);
      else this.#segment(ctx, colors, run, place, color, chosen);
      place += run.count;
    }
    ctx.globalAlpha = 1;
  }

  #color(colors, stay, step) {
    const { phase } = this.ride.rider(stay, step);
    return colors[phase] || colors["ink-soft"];
  }

  #sign(ctx, colors, memory) {
    const room = this.width - 20;
    ctx.textAlign = "left";
    ctx.font = font(10.5, 600);
    ctx.fillStyle = colors.ink;
    const counted = `${whole(memory.held)} of ${whole(this.ride.capacity)} blocks`;
    const words = ctx.measureText(`${counted} held`).width > room ? counted : `${counted} held`;
    ctx.fillText(clip(ctx, words, room), this.x + 10, this.top + 13);
    const left = room - ctx.measureText(words).width - 8;
    const lost = memory.lost.reduce((sum, { blocks }) => sum + blocks, 0);
    const note = lost ? `${whole(lost)} just lost` : memory.saved ? `sharing saves ${whole(memory.saved)}` : "";
    ctx.font = font(10.5);
    if (!note || ctx.measureText(note).width > left) return;
    ctx.textAlign = "right";
    ctx.fillStyle = lost ? colors.preempted : colors["ink-soft"];
    ctx.fillText(note, this.x + this.width - 10, this.top + 13);
  }

  #cells(ctx, colors, run, place, color, chosen) {
    const { cell, columns } = this;
    const gap = cell > 7 ? 2 : 1;
    for (let i = place; i < place + run.count; i++) {
      const x = this.left + (i % columns) * cell;
      const y = this.cellsTop + Math.floor(i / columns) * cell;
      drawBlock(ctx, colors, run.kind, x + gap / 2, y + gap / 2, cell - gap, color);
      if (i === place && run.owner) this.#mark(ctx, colors, run.owner, x, y, color);
      if (chosen) {
        ctx.strokeStyle = colors.ink;
        ctx.lineWidth = 1.4;
        ctx.strokeRect(x + 0.2, y + 0.2, cell - 0.4, cell - 0.4);
      }
    }
  }

  /** Where an owner's blocks begin: a line, and the slot where it can be read. */
  #mark(ctx, colors, owner, x, y, color) {
    const { cell } = this;
    ctx.fillStyle = colors.ink;
    ctx.fillRect(x - 0.5, y - 0.5, 1.2, cell + 1);
    if (cell < 11) return;
    ctx.fillStyle = color === colors.prefill ? "#24292f" : "#fff";
    ctx.font = font(8, 600);
    ctx.textAlign = "center";
    ctx.fillText(String(owner.slot), x + cell / 2, y + cell / 2 + 3);
  }

  #segment(ctx, colors, run, place, color, chosen) {
    const scale = this.inner / this.ride.capacity;
    const x = this.left + place * scale;
    const wide = run.count * scale;
    const held = { own: color, shared: colors.shared, other: colors["ink-soft"] }[run.kind];
    ctx.fillStyle = held || colors.lobby;
    ctx.fillRect(x, this.cellsTop, wide, BAR_TALL);
    if (!held) {
      ctx.strokeStyle = run.kind === "lost" ? colors.preempted : colors.free;
      ctx.lineWidth = 1;
      ctx.strokeRect(x + 0.5, this.cellsTop + 0.5, Math.max(0, wide - 1), BAR_TALL - 1);
    } else if (wide > 2) {
      ctx.fillStyle = colors.lobby;
      ctx.fillRect(x + wide - 0.7, this.cellsTop, 0.7, BAR_TALL);
    }
    if (!chosen) return;
    ctx.strokeStyle = colors.ink;
    ctx.lineWidth = 1.6;
    ctx.strokeRect(x, this.cellsTop - 1, wide, BAR_TALL + 2);
  }

  /** The run of blocks under a point, or undefined. */
  runAt(px, py, step) {
    const row = this.level === "blocks" ? Math.floor((py - this.cellsTop) / this.cell) : 0;
    const wide = this.level === "blocks" ? this.columns * this.cell : this.inner;
    const tall = this.level === "blocks" ? this.rows * this.cell : BAR_TALL;
    if (px < this.left || px >= this.left + wide || py < this.cellsTop || py >= this.cellsTop + tall) return undefined;
    let place = this.level === "blocks"
      ? row * this.columns + Math.floor((px - this.left) / this.cell)
      : ((px - this.left) / wide) * this.ride.capacity;
    return blockRuns(this.ride.memory(step)).find(({ count }) => (place -= count) < 0);
  }
}

// ---------- building: shaft, car, lobby ----------

const FIGURES_TO = 16;
const BARS_TO = 64;
const CELLS_TO = 4096;

/** How the slots lie in a car of a given width: level of detail, columns, rows, size of a cell. */
function carPlan(slots, width) {
  if (slots <= FIGURES_TO) {
    const fit = Math.max(1, Math.min(slots, Math.floor(width / 25)));
    const rows = Math.ceil(slots / fit);
    const columns = Math.ceil(slots / rows);
    return { level: "figures", columns, rows, cellWidth: Math.min(46, width / columns), cellHeight: 47 };
  }
  if (slots <= BARS_TO) {
    const rows = slots <= 32 || width / slots > 8 ? 1 : 2;
    const columns = Math.ceil(slots / rows);
    return { level: "bars", columns, rows, cellWidth: width / columns, cellHeight: rows === 1 ? 54 : 32 };
  }
  if (slots <= CELLS_TO) {
    const columns = Math.ceil(Math.sqrt(slots * 3.2));
    const size = width / columns;
    return { level: "cells", columns, rows: Math.ceil(slots / columns), cellWidth: size, cellHeight: size };
  }
  return { level: "gauge", columns: 1, rows: 1, cellWidth: width, cellHeight: 54 };
}

const SIGN = 30;
const TRAVEL = 128;
const LOBBY = 50;
const STREET = 5;
const CAR_HEAD = 17;
const CAR_FOOT = 5;

/** Where everything of one shaft stands, in CSS pixels. `span` is this ride's share of the longest one's time. */
function shaftPlan(ride, left, width, bottom, carTallest, span) {
  const building = Math.min(width - 16, 480);
  const facade = building > 360 ? 44 : building > 210 ? 26 : 16;
  const shaftWidth = building - 2 * facade;
  const plan = carPlan(ride.slots, shaftWidth - 14);
  const carHeight = CAR_HEAD + plan.rows * plan.cellHeight + CAR_FOOT;
  const x = left + (width - building) / 2;
  const ground = bottom - STREET;
  const low = ground - LOBBY - 4;
  const travel = (TRAVEL + carTallest - carHeight) * span;
  const carWidth = plan.columns * plan.cellWidth + 8;
  return {
    ...plan, x, building, facade, shaftWidth, carHeight, carWidth, ground, low, travel,
    roof: low - carHeight - travel - 12,
    carX: x + building / 2 - carWidth / 2,
  };
}

class Scene {
  constructor(canvas) {
    this.canvas = canvas;
    this.ctx = canvas.getContext("2d");
    this.still = document.createElement("canvas");
    this.doors = [];
    this.pointed = null; // {index, slot} of the rider pointed at, where memory is modeled
  }

  layout(rides, clock, width, colors) {
    Object.assign(this, { rides, clock, width, colors });
    const panel = width / Math.max(1, rides.length);
    const heights = rides.map((ride) => {
      const { carHeight } = shaftPlan(ride, 0, panel, 0, 0, 0);
      return carHeight;
    });
    const tallest = Math.max(60, ...heights);
    this.street = SIGN + 12 + TRAVEL + tallest + LOBBY + 4 + STREET + 2;
    this.shafts = rides.map((ride, i) => {
      const span = clock.end > 0 ? clock.rideTimes[i][ride.numSteps] / clock.end : 0;
      return shaftPlan(ride, i * panel, panel, this.street - 2, tallest, span);
    });
    this.floors = rides.map((ride, i) => {
      const { x, building } = this.shafts[i];
      return ride.capacity ? new MemoryFloor(ride, x, building, this.street - 2) : null;
    });
    this.height = this.street + Math.max(0, ...this.floors.map((floor) => (floor ? floor.height + 1 : 0)));
    this.doors = rides.map(() => 1);
    this.ratio = size(this.canvas, width, this.height);
    this.still.width = this.canvas.width;
    this.still.height = this.canvas.height;
    this.idle = hatch(this.ctx, colors.slot, colors.idle);
    const ctx = this.still.getContext("2d");
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    ctx.clearRect(0, 0, width, this.height);
    this.#skyline(ctx);
    this.shafts.forEach((shaft, i) => {
      shaft.windows = this.#windows(shaft);
      this.#building(ctx, shaft, rides[i]);
      this.floors[i]?.walls(ctx, colors);
    });
  }

  #skyline(ctx) {
    const { colors, width, street: height } = this;
    ctx.fillStyle = colors.sky;
    let seed = 7;
    for (let x = -10; x < width;) {
      seed = (seed * 16807) % 2147483647;
      const wide = 22 + (seed % 38);
      const tall = 60 + ((seed >> 8) % 90);
      ctx.fillRect(x, height - STREET - tall, wide - 3, tall);
      x += wide;
    }
    ctx.fillStyle = colors.street;
    ctx.fillRect(0, height - STREET - 2, width, 2);
  }

  #building(ctx, shaft, ride) {
    const { colors } = this;
    const { x, building, facade, roof, ground, low, shaftWidth } = shaft;
    ctx.fillStyle = colors.facade;
    ctx.strokeStyle = colors["facade-edge"];
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.roundRect(x, roof, building, ground - roof, [5, 5, 0, 0]);
    ctx.fill();
    ctx.stroke();
    ctx.fillStyle = colors["facade-edge"];
    ctx.fillRect(x - 4, roof - 3, building + 8, 5);
    ctx.fillRect(x + building / 2 - 15, roof - 10, 30, 8);
    ctx.fillStyle = colors.shaft;
    ctx.fillRect(x + facade, roof + 8, shaftWidth, low + 2 - roof - 8);
    ctx.fillStyle = colors.lobby;
    ctx.fillRect(x + 5, low + 7, building - 10, ground - low - 7);
    ctx.fillStyle = colors.window;
    for (const [px, py] of shaft.windows.flat()) ctx.fillRect(px, py, 7, 9);
    this.#floors(ctx, shaft, ride);
    ctx.fillStyle = colors.ink;
    ctx.textAlign = "left";
    ctx.font = font(11.5, 600);
    ctx.fillText(clip(ctx, ride.name, building * 0.55), x, roof - 9);
    ctx.textAlign = "right";
    ctx.font = font(10.5);
    ctx.fillStyle = colors["ink-soft"];
    ctx.fillText(countOf(ride.numSteps, "step"), x + building, roof - 9);
  }

  /** Faint floors across the shaft, numbered in steps: the higher, the longer the ride. */
  #floors(ctx, shaft, ride) {
    const { colors } = this;
    const left = shaft.x + shaft.facade;
    const most = Math.max(...this.rides.map((other) => other.numSteps));
    const stride = Math.max(1, niceStride(most, TRAVEL / 26));
    ctx.font = font(8.5);
    ctx.textAlign = "left";
    for (let floor = stride; floor <= ride.numSteps && shaft.travel > 20; floor += stride) {
      const y = shaft.low - (shaft.travel * ride.times[floor]) / ride.duration;
      ctx.fillStyle = colors["facade-edge"];
      ctx.globalAlpha = 0.55;
      ctx.fillRect(left, y, shaft.shaftWidth, 1);
      ctx.globalAlpha = 1;
      ctx.fillStyle = colors["ink-soft"];
      ctx.fillText(whole(floor), left + 4, y - 3);
    }
  }

  /** Rows of panes [x, y] from the ground up; a row lights as riders get home while the car is there. */
  #windows(shaft) {
    const { x, building, facade, roof, low } = shaft;
    const perSide = Math.max(1, Math.floor((facade - 4) / 13));
    const margin = (facade - perSide * 13 + 6) / 2;
    const rows = [];
    for (let y = low - 12; y > roof + 12; y -= 17) {
      const panes = [];
      for (let i = 0; i < perSide; i++) {
        panes.push([x + margin + i * 13, y - 4], [x + building - margin - i * 13 - 7, y - 4]);
      }
      rows.push(panes);
    }
    return rows;
  }

  /** Draw a position of the clock. `motion` false: no easing, whole steps only. */
  draw(position, motion) {
    const { ctx } = this;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ctx.drawImage(this.still, 0, 0);
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.rides.forEach((ride, i) => this.#ride(ride, i, position, motion));
  }

  #ride(ride, index, position, motion) {
    const tick = Math.min(Math.floor(position), this.clock.last);
    const step = this.clock.stepOf[index][tick];
    const times = this.clock.rideTimes[index];
    const now = motion ? this.clock.at(position) : this.clock.times[tick];
    const length = times[step + 1] - times[step];
    const part = motion && length > 0 ? Math.min(1, Math.max(0, (now - times[step]) / length)) : 1;
    const shaft = this.shafts[index];
    const done = ride.duration > 0 ? Math.min(1, now / times[ride.numSteps]) : 0;
    const y = shaft.low - shaft.carHeight - shaft.travel * done;
    this.#lights(ride, shaft, step);
    this.#lobby(ride, shaft, step);
    const slot = this.pointed?.index === index ? this.pointed.slot : -1;
    this.floors[index]?.draw(this.ctx, this.colors, step, slot);
    this.#car(ride, shaft, y, step, part, this.#openDoor(ride, index, step, motion));
    if (slot >= 0 && shaft.level !== "gauge") this.#point(shaft, y + CAR_HEAD, slot);
    if (motion && shaft.level === "figures") this.#walkers(ride, shaft, y + CAR_HEAD, step, part);
  }

  /** A frame around the slot pointed at. */
  #point(shaft, top, slot) {
    const { ctx } = this;
    const x = shaft.carX + 4 + (slot % shaft.columns) * shaft.cellWidth;
    const y = top + Math.floor(slot / shaft.columns) * shaft.cellHeight;
    ctx.strokeStyle = this.colors.ink;
    ctx.lineWidth = 1.6;
    ctx.strokeRect(x, y, shaft.cellWidth, shaft.cellHeight);
  }

  /** Those who have just left: home through the nearer wall, or down to the lobby again. */
  #walkers(ride, shaft, top, step, part) {
    for (const stay of ride.leavers(step)) {
      const how = ride.stays.how[stay];
      const phase = { [KIND.FINISH]: "finished", [KIND.PREEMPT]: "preempted" }[how];
      if (!phase) continue;
      const slot = ride.stays.slot[stay];
      const x = shaft.carX + 4 + ((slot % shaft.columns) + 0.5) * shaft.cellWidth;
      const y = top + (Math.floor(slot / shaft.columns) + 1) * shaft.cellHeight - 13;
      const middle = shaft.x + shaft.building / 2;
      const wall = x < middle ? shaft.x + shaft.facade / 2 : shaft.x + shaft.building - shaft.facade / 2;
      const home = how === KIND.FINISH;
      this.ctx.globalAlpha = 1 - part * part;
      const toX = home ? wall : x;
      const toY = home ? y : shaft.ground - 13;
      drawFigure(this.ctx, this.colors, x + (toX - x) * part, y + (toY - y) * part, 31, phase, 1);
    }
    this.ctx.globalAlpha = 1;
  }

  #lights(ride, shaft, step) {
    const { ctx, colors } = this;
    if (!ride.finishes.length) return;
    const rows = shaft.windows;
    const homeBy = (floor) => after(ride.finishes, Math.min(step, (floor / rows.length) * ride.numSteps - 1));
    ctx.fillStyle = colors.finished;
    const share = Math.max(1, ride.finishes.length / rows.length);
    rows.forEach((panes, floor) => {
      const home = homeBy(floor + 1) - homeBy(floor);
      const lit = home ? Math.max(1, Math.min(panes.length, Math.round((home / share) * panes.length))) : 0;
      for (let pane = 0; pane < lit; pane++) ctx.fillRect(panes[pane][0], panes[pane][1], 7, 9);
    });
  }

  #lobby(ride, shaft, step) {
    const { ctx, colors } = this;
    const { x, building, ground } = shaft;
    const waiting = ride.counts(step).waiting;
    if (!waiting) return;
    const cell = 23;
    const room = building - 22;
    const fit = Math.max(1, Math.floor((room - 44) / cell));
    const queue = ride.queue(step, fit);
    ctx.textAlign = "center";
    queue.forEach(({ request, why }, i) => {
      const px = x + 11 + cell * (i + 0.5);
      const phase = why === KIND.PREEMPT ? "preempted" : "waiting";
      drawFigure(ctx, colors, px, ground - 13, 24, phase, 0);
      ctx.font = font(8);
      ctx.fillStyle = colors.ink;
      ctx.fillText(short(ride.requests.goal[request]), px, ground - 3.5);
    });
    if (waiting > queue.length) {
      ctx.font = font(11, 600);
      ctx.fillStyle = colors.ink;
      ctx.textAlign = "right";
      ctx.fillText(`+${whole(waiting - queue.length)}`, x + building - 12, ground - 18);
    }
  }

  /** Doors open in a step in which someone boards or has just left. */
  #openDoor(ride, index, step, motion) {
    const moves = step >= ride.numSteps || ride.boardedAt(step) > 0 || ride.leavers(step).length > 0;
    const wanted = moves ? 1 : 0;
    this.doors[index] = motion ? this.doors[index] + (wanted - this.doors[index]) * 0.25 : wanted;
    return this.doors[index];
  }

  #car(ride, shaft, y, step, part, open) {
    const { ctx, colors } = this;
    const { carX, carWidth, carHeight, roof } = shaft;
    ctx.strokeStyle = colors["ink-soft"];
    ctx.lineWidth = 1.4;
    ctx.beginPath();
    for (const rope of [-3, 3]) {
      ctx.moveTo(carX + carWidth / 2 + rope, roof + 8);
      ctx.lineTo(carX + carWidth / 2 + rope, y);
    }
    ctx.stroke();
    ctx.fillStyle = colors.car;
    ctx.beginPath();
    ctx.roundRect(carX, y, carWidth, carHeight, 5);
    ctx.fill();
    this.#display(ride, shaft, y, step);
    const top = y + CAR_HEAD;
    ctx.fillStyle = colors.surface;
    ctx.fillRect(carX + 4, top, carWidth - 8, carHeight - CAR_HEAD - CAR_FOOT);
    if (step < ride.numSteps || shaft.level !== "gauge") this.#slots(ride, shaft, top, step, part);
    this.#doorPanels(shaft, top, open);
  }

  /** The floor display over the door. */
  #display(ride, shaft, y, step) {
    const { ctx } = this;
    ctx.fillStyle = "#fff";
    ctx.font = font(10, 600);
    ctx.textAlign = "center";
    const text = step >= ride.numSteps ? ride.rest : `▲ ${whole(step)}`;
    ctx.fillText(text, shaft.carX + shaft.carWidth / 2, y + 12.5);
  }

  #doorPanels(shaft, top, open) {
    const { ctx, colors } = this;
    const height = shaft.carHeight - CAR_HEAD - CAR_FOOT;
    const inner = shaft.carWidth - 8;
    const panel = (inner / 2) * (1 - open);
    if (panel < 1 || shaft.level !== "figures") return;
    ctx.globalAlpha = 0.16;
    ctx.fillStyle = colors.car;
    ctx.fillRect(shaft.carX + 4, top, panel, height);
    ctx.fillRect(shaft.carX + 4 + inner - panel, top, panel, height);
    ctx.globalAlpha = 0.75;
    ctx.fillRect(shaft.carX + 4 + panel - 1, top, 1.2, height);
    ctx.fillRect(shaft.carX + 4 + inner - panel, top, 1.2, height);
    ctx.globalAlpha = 1;
  }

  #slots(ride, shaft, top, step, part) {
    if (shaft.level === "cells") {
      this.ctx.fillStyle = this.colors.car; // what the last row has too much
      this.ctx.fillRect(shaft.carX + 4, top + (shaft.rows - 1) * shaft.cellHeight, shaft.carWidth - 8, shaft.cellHeight);
    }
    const draw = { figures: this.#slotFigure, bars: this.#slotBar, cells: this.#slotCell }[shaft.level];
    if (!draw) { this.#gauge(ride, shaft, top, step); return; }
    for (let slot = 0; slot < ride.slots; slot++) {
      const x = shaft.carX + 4 + (slot % shaft.columns) * shaft.cellWidth;
      const y = top + Math.floor(slot / shaft.columns) * shaft.cellHeight;
      const stay = ride.stayAt(slot, step);
      draw.call(this, shaft, x, y, stay < 0 ? null : ride.rider(stay, step, part));
    }
  }

  #slotFigure(shaft, x, y, rider) {
    const { ctx, colors } = this;
    const { cellWidth, cellHeight } = shaft;
    if (!rider) {
      ctx.fillStyle = this.idle;
      ctx.fillRect(x + 1, y + 1, cellWidth - 2, cellHeight - 2);
      return;
    }
    drawFigure(ctx, colors, x + cellWidth / 2, y + cellHeight - 13, 31, rider.phase, rider.progress);
    ctx.font = font(9);
    ctx.textAlign = "center";
    ctx.fillStyle = colors.ink;
    ctx.fillText(short(rider.goal), x + cellWidth / 2, y + cellHeight - 3);
  }

  #slotBar(shaft, x, y, rider) {
    const { ctx, colors } = this;
    const width = Math.max(1.5, shaft.cellWidth - 1);
    const height = shaft.cellHeight - 3;
    ctx.fillStyle = rider ? colors.lobby : this.idle;
    ctx.fillRect(x, y + 1.5, width, height);
    if (!rider) return;
    const filled = rider.phase === "finished" ? height : Math.max(2, height * rider.progress);
    ctx.fillStyle = colors[rider.phase] || colors["ink-soft"];
    ctx.fillRect(x, y + 1.5 + height - filled, width, filled);
    if (rider.phase === "prefill") ctx.fillRect(x, y + 1.5, width, 2);
  }

  /** Density: a square a slot, stronger the further its rider has come. */
  #slotCell(shaft, x, y, rider) {
    const { ctx, colors } = this;
    const gap = shaft.cellWidth > 5 ? 1 : 0.4;
    const side = shaft.cellWidth - gap;
    ctx.fillStyle = rider ? colors[rider.phase] || colors["ink-soft"] : colors.slot;
    ctx.globalAlpha = rider && rider.phase === "decode" ? 0.35 + 0.65 * rider.progress : 1;
    ctx.fillRect(x, y, side, side);
    ctx.globalAlpha = 1;
  }

  #gauge(ride, shaft, top, step) {
    const { ctx, colors } = this;
    const share = ride.counts(step).running / ride.slots;
    ctx.fillStyle = this.idle;
    ctx.fillRect(shaft.carX + 4, top, shaft.cellWidth, shaft.cellHeight);
    ctx.fillStyle = colors.decode;
    ctx.fillRect(shaft.carX + 4, top, shaft.cellWidth * share, shaft.cellHeight);
  }

  /** The run of blocks under a point, as {ride, index, step, run}, or null. */
  blocksAt(px, py, position) {
    const tick = Math.min(Math.floor(position), this.clock.last);
    for (const [index, floor] of this.floors.entries()) {
      const step = this.clock.stepOf[index][tick];
      const run = floor?.runAt(px, py, step);
      if (run) return { ride: this.rides[index], index, step, run };
    }
    return null;
  }

  /** The rider under a point, as {ride, index, slot, stay, step}, or null. */
  riderAt(px, py, position) {
    const tick = Math.min(Math.floor(position), this.clock.last);
    for (const [i, shaft] of this.shafts.entries()) {
      const ride = this.rides[i];
      const step = this.clock.stepOf[i][tick];
      const done = ride.duration > 0 ? Math.min(1, this.clock.times[tick] / this.clock.rideTimes[i][ride.numSteps]) : 0;
      const top = shaft.low - shaft.carHeight - shaft.travel * done + CAR_HEAD;
      const column = Math.floor((px - shaft.carX - 4) / shaft.cellWidth);
      const row = Math.floor((py - top) / shaft.cellHeight);
      if (column < 0 || column >= shaft.columns || row < 0 || row >= shaft.rows || shaft.level === "gauge") continue;
      const slot = row * shaft.columns + column;
      const stay = slot < ride.slots ? ride.stayAt(slot, step) : -1;
      if (stay >= 0) return { ride, index: i, slot, stay, step };
    }
    return null;
  }
}

/** Numbers that fit under a figure: 987, 1.2k, 13k. */
function short(number) {
  if (number < 1000) return String(number);
  return number < 10000 ? `${(number / 1000).toFixed(1)}k` : `${Math.round(number / 1000)}k`;
}

function clip(ctx, text, width) {
  if (ctx.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && ctx.measureText(`${text.slice(0, end)}…`).width > width) end -= 1;
  return `${text.slice(0, end)}…`;
}

/** Size a canvas in CSS pixels for this screen; returns device pixels per CSS pixel. */
function size(canvas, width, height) {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  return ratio;
}

// ---------- gantt: slots over time ----------

const GANTT_LEFT = 8;
const GANTT_LABEL = 17;
const GANTT_AXIS = 20;
const VECTOR_STAYS = 6000;

class Gantt {
  constructor(canvas) {
    this.canvas = canvas;
    this.ctx = canvas.getContext("2d");
    this.still = document.createElement("canvas");
  }

  layout(rides, clock, width, colors) {
    Object.assign(this, { rides, clock, width, colors });
    const room = rides.length > 1 ? 92 : 130;
    let y = 0;
    this.lanes = rides.map((ride) => {
      const height = Math.max(14, Math.min(room, ride.slots * 12));
      const lane = { top: y + GANTT_LABEL, height, row: height / ride.slots };
      y = lane.top + height + 6;
      return lane;
    });
    this.height = Math.max(40, y + GANTT_AXIS);
    this.ratio = size(this.canvas, width, this.height);
    this.still.width = this.canvas.width;
    this.still.height = this.canvas.height;
    const ctx = this.still.getContext("2d");
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    ctx.clearRect(0, 0, width, this.height);
    rides.forEach((ride, i) => this.#lane(ctx, ride, i));
    this.#axis(ctx);
  }

  x(time) {
    return GANTT_LEFT + ((this.width - 2 * GANTT_LEFT) * time) / (this.clock.end || 1);
  }

  timeAt(x) {
    const share = (x - GANTT_LEFT) / (this.width - 2 * GANTT_LEFT);
    return Math.max(0, Math.min(1, share)) * this.clock.end;
  }

  #lane(ctx, ride, index) {
    const { colors } = this;
    const { top, height } = this.lanes[index];
    const end = this.x(this.clock.rideTimes[index][ride.numSteps]);
    ctx.font = font(11, 600);
    ctx.textAlign = "left";
    ctx.fillStyle = colors.ink;
    ctx.fillText(clip(ctx, ride.name, this.width * 0.6), GANTT_LEFT, top - 5);
    ctx.fillStyle = hatch(ctx, colors.lobby, colors.idle);
    ctx.fillRect(GANTT_LEFT, top, end - GANTT_LEFT, height);
    if (ride.stays.rows <= VECTOR_STAYS && this.lanes[index].row >= 2) this.#bars(ctx, ride, index);
    else this.#raster(ctx, ride, index);
  }

  #bars(ctx, ride, index) {
    const { colors } = this;
    const times = this.clock.rideTimes[index];
    const { top, row } = this.lanes[index];
    const { stays, spans } = ride;
    const gap = row > 5 ? 1 : row > 3 ? 0.5 : 0;
    const stripes = hatch(ctx, colors.prefill, colors.surface, -1);
    const bar = (slot, first, end, color) => {
      const left = this.x(times[first]);
      const wide = this.x(times[end]) - left;
      ctx.fillStyle = color;
      ctx.fillRect(left, top + slot * row + gap / 2, Math.max(0.6, wide > 4 ? wide - 0.6 : wide), row - gap);
    };
    for (let i = 0; i < stays.rows; i++) bar(stays.slot[i], stays.first[i], stays.end[i], colors.idle);
    for (const wanted of [KIND.DECODE, KIND.PREFILL]) {
      for (let i = 0; i < spans.rows; i++) {
        if (spans.kind[i] !== wanted) continue;
        const color = wanted === KIND.DECODE ? colors.decode : stripes;
        bar(stays.slot[spans.stay[i]], spans.first[i], spans.end[i], color);
      }
    }
    for (let i = 0; i < stays.rows; i++) this.#ending(ctx, ride, i, times, top, row, gap);
  }

  /** A green cap where a rider got home, a vermilion wedge where one was put off. */
  #ending(ctx, ride, stay, times, top, row, gap) {
    const { stays } = ride;
    const right = this.x(times[stays.end[stay]]);
    const y = top + stays.slot[stay] * row + gap / 2;
    const tall = row - gap;
    if (stays.how[stay] === KIND.FINISH && right - this.x(times[stays.first[stay]]) > 4) {
      ctx.fillStyle = this.colors.finished;
      ctx.fillRect(right - 2.6, y, 2, tall);
    } else if (stays.how[stay] === KIND.PREEMPT) {
      ctx.fillStyle = this.colors.preempted;
      ctx.beginPath();
      ctx.moveTo(right, y);
      ctx.lineTo(right, y + tall);
      ctx.lineTo(right - Math.min(7, tall), y + tall);
      ctx.fill();
    }
  }

  /** Many rows or riders: one pixel column at a time, by how much of it decodes and prefills. */
  #raster(ctx, ride, index) {
    const { top, height } = this.lanes[index];
    const left = GANTT_LEFT;
    const columns = Math.ceil(this.x(this.clock.rideTimes[index][ride.numSteps]) - left);
    const together = Math.ceil(ride.slots / Math.floor(height)); // slots that share a row of pixels
    const rows = Math.ceil(ride.slots / together);
    if (columns < 1) return;
    const share = { [KIND.DECODE]: new Float32Array(rows * columns), [KIND.PREFILL]: new Float32Array(rows * columns) };
    this.#cover(ride, index, together, columns, share);
    const tile = document.createElement("canvas");
    tile.width = columns;
    tile.height = rows;
    const pen = tile.getContext("2d");
    const image = pen.createImageData(columns, rows);
    const decode = rgb(this.colors.decode);
    const prefill = rgb(this.colors.prefill);
    for (let i = 0; i < rows * columns; i++) {
      const read = share[KIND.PREFILL][i];
      const busy = Math.min(1, share[KIND.DECODE][i] + read);
      const blend = busy > 0 ? Math.min(1, read / busy) : 0;
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = decode[c] + (prefill[c] - decode[c]) * blend;
      image.data[4 * i + 3] = 255 * busy;
    }
    pen.putImageData(image, 0, 0);
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(tile, left, top, columns, height);
  }

  #cover(ride, index, together, columns, share) {
    const times = this.clock.rideTimes[index];
    const { spans, stays } = ride;
    for (let i = 0; i < spans.rows; i++) {
      const into = share[spans.kind[i]];
      const slot = stays.slot[spans.stay[i]];
      const first = slot - (slot % together);
      const weight = 1 / Math.min(together, ride.slots - first);
      const row = (first / together) * columns;
      const from = this.x(times[spans.first[i]]) - GANTT_LEFT;
      const to = Math.min(columns, this.x(times[spans.end[i]]) - GANTT_LEFT);
      for (let column = Math.floor(from); column < to; column++) {
        into[row + column] += (Math.min(to, column + 1) - Math.max(from, column)) * weight;
      }
    }
  }

  #axis(ctx) {
    const { colors, clock, height } = this;
    const y = height - GANTT_AXIS + 3;
    ctx.strokeStyle = ctx.fillStyle = colors["ink-soft"];
    ctx.lineWidth = 1;
    ctx.font = font(10);
    const finest = clock.unit === "steps" ? 1 : 0;
    const stride = Math.max(finest, niceStride(clock.end, Math.max(2, this.width / 90)));
    for (let at = 0; at <= clock.end && stride > 0; at += stride) {
      const x = this.x(at);
      ctx.fillRect(x - 0.5, y, 1, 4);
      ctx.textAlign = at === 0 ? "left" : x > this.width - 40 ? "right" : "center";
      ctx.fillText(at === 0 ? `${clock.unit} 0` : tickText(at, stride), at === 0 ? GANTT_LEFT : x, y + 14);
    }
  }

  draw(position) {
    const { ctx, colors } = this;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ctx.drawImage(this.still, 0, 0);
    if (!this.rides.length || !this.clock.end) return;
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    const x = this.x(this.clock.at(position));
    const bottom = this.height - GANTT_AXIS;
    ctx.globalAlpha = 0.62;
    ctx.fillStyle = colors.surface;
    for (const { top, height } of this.lanes) ctx.fillRect(x, top, this.width - x, height);
    ctx.globalAlpha = 1;
    ctx.fillStyle = colors.ink;
    for (const { top, height } of this.lanes) ctx.fillRect(x - 0.75, top - 3, 1.5, height + 6);
    ctx.beginPath();
    ctx.moveTo(x - 5, bottom + 4);
    ctx.lineTo(x + 5, bottom + 4);
    ctx.lineTo(x, bottom - 4);
    ctx.fill();
  }
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

/** 1, 2 or 5 times a power of ten, so that about `count` of them fit. */
function niceStride(end, count) {
  if (!(end > 0)) return 0;
  const rough = end / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

function tickText(value, stride) {
  const digits = Math.max(0, -Math.floor(Math.log10(stride) + 1e-9));
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// ---------- words: captions ----------

function listing(names) {
  if (names.length > 3) return `${names.length} riders`;
  return names.join(" and ");
}

/** One sentence about one ride at one step. */
function sentence(ride, step) {
  if (!ride.numSteps) return "this Trace has no steps: nobody rides";
  const counts = ride.counts(step);
  if (counts.over) return `all home after ${countOf(ride.numSteps, "step")}, ${percent(counts.utilization)} of the slots used`;
  const parts = [`${whole(counts.running)} of ${whole(ride.slots)} on board, ${whole(counts.waiting)} waiting`];
  const left = [...ride.leavers(step + 1)];
  const home = left.filter((stay) => ride.stays.how[stay] === KIND.FINISH).map((stay) => ride.nameOf(ride.stays.request[stay]));
  const off = [...ride.leavers(step)].filter((stay) => ride.stays.how[stay] === KIND.PREEMPT);
  const boarded = ride.boardedAt(step);
  if (ride.capacity) parts.push(memoryWords(ride, step));
  if (boarded) parts.push(boarded === 1 ? "one boards" : `${whole(boarded)} board`);
  if (home.length) parts.push(`${listing(home)} ${home.length === 1 ? "gets" : "get"} home`);
  if (off.length) parts.push(`${listing(off.map((stay) => ride.nameOf(ride.stays.request[stay])))} put off, to board again`);
  return parts.join("; ");
}

/** Under the pointer: who rides there, and its label. */
function riderWords({ ride, stay, slot, step }) {
  const rider = ride.rider(stay, step);
  const words = [`Rider ${rider.request}: ${whole(rider.done)} of ${whole(rider.goal)} tokens, ${rider.phase}`];
  if (ride.capacity) words.push(`${countOf(ride.blocksOf(stay, step), "block")} in the table of slot ${slot}`);
  if (ride.labels[rider.request]) words.push(ride.labels[rider.request]);
  return words.join("\n");
}

/** Under the pointer: blocks that no single rider has. */
function runWords({ kind, count }) {
  const words = {
    shared: "in more than one rider's table",
    other: "held, but by nobody on board",
    lost: "lost by those just put off, free again",
    free: "free",
  };
  return `${countOf(count, "block")} ${words[kind]}`;
}

/** "31 of 39 blocks held", and what sharing saves or those put off lost. */
function memoryWords(ride, step) {
  const memory = ride.memory(step);
  const words = [`${whole(memory.held)} of ${whole(ride.capacity)} blocks held`];
  if (memory.saved) words.push(`sharing saves ${whole(memory.saved)}`);
  const lost = memory.lost.reduce((sum, { blocks }) => sum + blocks, 0);
  if (lost) words.push(`${whole(lost)} lost`);
  return words.join(", ");
}

function caption(rides, clock, tick) {
  if (!rides.length) return "Nothing to show.";
  if (clock.last === 0) return rides.map((ride) => `${ride.name}: ${sentence(ride, 0)}.`).join(" ");
  const lines = rides.map((ride, i) => `${ride.name}: ${sentence(ride, clock.stepOf[i][tick])}.`);
  const place = clock.unit === "steps" ? `Step ${whole(tick)} of ${whole(clock.last)}.` : `At ${clock.times[tick].toFixed(2)} s.`;
  return `${place} ${lines.join(" ")}`;
}

// ---------- page: elements, keys, the player ----------

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

const ICONS = {
  start: "M3 3h2v10H3zM13 3v10L6 8z",
  back: "M10 3v10L3 8zM11 3h2v10h-2z",
  play: "M4 2.5v11L13.5 8z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  forward: "M6 3v10l7-5zM3 3h2v10H3z",
  end: "M11 3h2v10h-2zM3 3v10l7-5z",
  loop: "M8 2.5V0l4 3.5L8 7V4.5A3.5 3.5 0 1 0 11.5 8h2A5.5 5.5 0 1 1 8 2.5z",
};

const SPEEDS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const RIDE_SECONDS = 20;
const SLOW_MOTION_FRAMES = 4; // pictures a second where motion is to be reduced
const SYNC_AFTER = 200; // ms of rest before Python hears of a new step

function legendFor(rides) {
  const entries = [["decode", "decode"], ["finished", "finished"], ["idle", "idle slot"]];
  if (rides.some((ride) => ride.spans.kind.includes(KIND.PREFILL))) entries.unshift(["prefill", "prefill"]);
  if (rides.some((ride) => ride.stalls)) entries.push(["stalled", "on board, not its turn"]);
  const puts = rides.some((ride) => ride.stays.how.includes(KIND.PREEMPT));
  if (puts) entries.push(["preempted", "preempted"]);
  if (!rides.some((ride) => ride.capacity)) return entries;
  entries.push(["block-own", "a rider's block"]);
  if (rides.some((ride) => ride.stayBlocks.cached.some(Boolean))) entries.push(["block-shared", "shared block"]);
  entries.push(["block-free", "free block"]);
  if (puts) entries.push(["block-lost", "just lost"]);
  return entries;
}

/** What stands before a word of the legend. */
function drawMark(canvas, colors, phase) {
  const ratio = size(canvas, 16, 20);
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  if (phase === "idle") {
    ctx.fillStyle = hatch(ctx, colors.slot, colors.idle);
    ctx.fillRect(2, 3, 12, 15);
  } else if (phase.startsWith("block-")) {
    drawBlock(ctx, colors, phase.slice(6), 2, 5, 12, colors.decode);
  } else drawFigure(ctx, colors, 8, 18, 18, phase, 0.6);
}

class Player {
  constructor(model, el) {
    this.model = model;
    this.position = 0;
    this.playing = false;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.#build(el);
    this.scene = new Scene(this.sceneCanvas);
    this.gantt = new Gantt(this.ganttCanvas);
    this.#listen();
    this.load();
  }

  // ----- elements -----

  #build(el) {
    this.root = element("div", { class: "elevator", tabindex: "0", role: "group", "data-lm-suppress-shortcuts": "true" });
    this.title = element("div", { class: "elevator-title" });
    this.sceneCanvas = element("canvas", { role: "img" });
    this.ganttCanvas = element("canvas", { role: "img", class: "elevator-gantt" });
    this.stats = element("div", { class: "elevator-stats" });
    this.slider = element("input", { type: "range", min: "0", step: "any", value: "0", "aria-label": "Step" });
    this.caption = element("div", { class: "elevator-caption", "aria-live": "polite" });
    this.legend = element("div", { class: "elevator-legend" });
    this.tip = element("div", { class: "elevator-tip", hidden: "" });
    this.root.append(
      this.title, this.sceneCanvas, this.stats, this.ganttCanvas, this.slider, this.#controls(), this.caption,
      this.legend, this.tip,
    );
    el.append(this.root);
  }

  #controls() {
    const button = (name, label, act) => {
      const node = element("button", { type: "button", "aria-label": label, title: label }, icon(ICONS[name]));
      node.addEventListener("click", act);
      return node;
    };
    this.playButton = button("play", "Play", () => this.toggle());
    this.loopButton = button("loop", "Loop", () => this.#toggleLoop());
    this.loopButton.setAttribute("aria-pressed", "false");
    this.speed = element("select", { "aria-label": "Speed" });
    this.speed.addEventListener("change", () => this.#choseSpeed());
    this.place = element("span", { class: "elevator-place" });
    return element(
      "div", { class: "elevator-controls" },
      button("start", "To the start", () => this.go(0)),
      button("back", "One step back", () => this.stepBy(-1)),
      this.playButton,
      button("forward", "One step forward", () => this.stepBy(1)),
      button("end", "To the end", () => this.go(this.clock.last)),
      this.loopButton, this.speed, this.place,
    );
  }

  // ----- events -----

  #listen() {
    this.root.addEventListener("keydown", (event) => this.#key(event));
    this.slider.addEventListener("input", () => this.go(this.clock.tickAt(Number(this.slider.value))));
    this.#scrub();
    this.sceneCanvas.addEventListener("pointermove", (event) => this.#point(event));
    this.sceneCanvas.addEventListener("pointerleave", () => { this.tip.hidden = true; this.#pointAt(null); });
    this.resizes = new ResizeObserver(() => this.#fit());
    this.resizes.observe(this.root);
    this.themes = new MutationObserver(() => this.#dress());
    this.themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.onScheme = () => this.#dress();
    this.scheme.addEventListener("change", this.onScheme);
    this.handlers = {
      "change:_rides": () => this.load(),
      "change:title": () => this.#label(),
      "change:step": () => this.#follow(),
      "change:playing": () => this.#setPlaying(this.model.get("playing")),
      "change:speed": () => this.#offerSpeeds(),
      "change:loop": () => this.#showLoop(),
    };
    for (const [name, handler] of Object.entries(this.handlers)) this.model.on(name, handler);
  }

  #scrub() {
    const canvas = this.ganttCanvas;
    const to = (event) => this.go(this.clock.tickAt(this.gantt.timeAt(event.clientX - canvas.getBoundingClientRect().left)));
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); to(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) to(event); });
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target === this.speed) return;
    const leap = Math.max(1, Math.round(this.clock.last / 10));
    const act = {
      ArrowLeft: () => this.stepBy(-1),
      ArrowRight: () => this.stepBy(1),
      ArrowDown: () => this.stepBy(-1),
      ArrowUp: () => this.stepBy(1),
      PageDown: () => this.stepBy(-leap),
      PageUp: () => this.stepBy(leap),
      Home: () => this.go(0),
      End: () => this.go(this.clock.last),
      " ": () => this.toggle(),
    }[event.key];
    if (!act || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  #point(event) {
    const box = this.sceneCanvas.getBoundingClientRect();
    const at = [event.clientX - box.left, event.clientY - box.top, this.position];
    const blocks = this.scene.blocksAt(...at);
    const found = blocks?.run.owner ? { ...blocks, ...blocks.run.owner } : this.scene.riderAt(...at);
    this.#pointAt(found?.ride.capacity ? { index: found.index, slot: found.slot } : null);
    this.tip.hidden = !found && !blocks;
    if (this.tip.hidden) return;
    this.tip.textContent = found ? riderWords(found) : runWords(blocks.run);
    const base = this.root.getBoundingClientRect();
    this.tip.style.left = `${Math.min(event.clientX - base.left + 12, base.width - 190)}px`;
    this.tip.style.top = `${event.clientY - base.top + 14}px`;
  }

  /** Set off a rider's slot and blocks, {index, slot}, or nobody's. */
  #pointAt(pointed) {
    const before = this.scene.pointed;
    if (before?.index === pointed?.index && before?.slot === pointed?.slot) return;
    this.scene.pointed = pointed;
    if (!this.playing) this.show();
  }

  // ----- a new ride -----

  load() {
    this.rides = (this.model.get("_rides") || []).map((wire) => new Ride(wire));
    this.scene.pointed = null;
    this.clock = new Clock(this.rides);
    this.slider.max = String(this.clock.end);
    this.position = Math.min(this.model.get("step"), this.clock.last);
    this.#label();
    this.#showLoop();
    this.#offerSpeeds();
    this.#makeStats();
    this.#makeLegend();
    this.#dress();
    this.#setPlaying(this.model.get("playing"));
  }

  #label() {
    const title = this.model.get("title");
    this.title.textContent = title;
    this.title.hidden = !title;
    this.root.setAttribute("aria-label", `${title || "Elevator"}. Arrow keys step, space plays, home and end jump.`);
    const names = this.rides.map((ride) => ride.name).join(", ");
    const memory = this.rides.some((ride) => ride.capacity) ? ", above their K/V blocks" : "";
    this.sceneCanvas.setAttribute("aria-label", `Elevator cars: ${names}${memory}`);
    this.ganttCanvas.setAttribute("aria-label", `Slots over time: ${names}`);
  }

  #makeStats() {
    this.statCells = this.rides.map((ride) => {
      const big = element("span", { class: "elevator-big" });
      const meter = element("span", { class: "elevator-meter" }, element("i"));
      const small = element("span", { class: "elevator-small" });
      const name = element("span", { class: "elevator-name", text: ride.name });
      const head = element("div", {}, big, element("span", { class: "elevator-small", text: " utilization so far" }));
      return { node: element("div", { class: "elevator-stat" }, name, head, meter, small), big, meter: meter.firstChild, small };
    });
    this.stats.replaceChildren(...this.statCells.map((cell) => cell.node));
    this.stats.style.gridTemplateColumns = `repeat(${Math.max(1, this.rides.length)}, 1fr)`;
  }

  #makeLegend() {
    this.legend.replaceChildren(...legendFor(this.rides).map(([phase, words]) => {
      const mark = element("canvas", { class: "elevator-mark", "data-phase": phase, "aria-hidden": "true" });
      return element("span", {}, mark, document.createTextNode(words));
    }), element("span", { class: "elevator-hint", text: this.#hint() }));
  }

  #hint() {
    const memory = this.rides.some((ride) => ride.capacity);
    return memory ? "number: tokens wanted; in a block: slot" : "number: tokens wanted";
  }

  #drawLegend() {
    for (const mark of this.legend.querySelectorAll("canvas")) drawMark(mark, this.colors, mark.dataset.phase);
  }

  // ----- looks -----

  #dress() {
    this.width = 0;
    this.#fit();
  }

  /** Lay out for the width we have. Only a page's element has a width and colors, so the first call may be early. */
  #fit() {
    const width = Math.floor(this.root.clientWidth) - 6;
    if (width < 40 || width === this.width) return;
    this.width = width;
    this.root.dataset.theme = isDark() ? "dark" : "light";
    this.colors = readColors(this.root);
    this.#drawLegend();
    this.scene.layout(this.rides, this.clock, width, this.colors);
    this.gantt.layout(this.rides, this.clock, width, this.colors);
    this.show();
  }

  // ----- where we are -----

  get tick() {
    return Math.min(Math.floor(this.position), this.clock.last);
  }

  go(tick) {
    this.position = Math.max(0, Math.min(this.clock.last, tick));
    this.before = undefined;
    this.show();
    this.#sync();
  }

  stepBy(change) {
    this.#setPlaying(false);
    this.go(this.tick + change);
  }

  #follow() {
    const step = this.model.get("step");
    if (step !== this.tick) this.go(step);
  }

  /** Everything for the current position; while playing, words and numbers come ten times a second. */
  show() {
    if (!this.width) return;
    const motion = this.playing && !this.calm.matches;
    this.scene.draw(motion ? this.position : this.tick, motion);
    this.gantt.draw(motion ? this.position : this.tick);
    const now = performance.now();
    if (this.playing && now - (this.wroteAt || 0) < 100) return;
    this.wroteAt = now;
    this.#write();
  }

  #write() {
    const { tick } = this;
    this.slider.value = String(this.clock.times[tick]);
    const place = this.clock.unit === "steps"
      ? `step ${whole(tick)} of ${whole(this.clock.last)}`
      : `${this.clock.times[tick].toFixed(2)} of ${this.clock.end.toFixed(2)} s`;
    this.place.textContent = place;
    this.slider.setAttribute("aria-valuetext", place);
    this.rides.forEach((ride, i) => {
      const counts = ride.counts(this.clock.stepOf[i][tick]);
      const cell = this.statCells[i];
      cell.big.textContent = percent(counts.utilization);
      cell.meter.style.width = percent(counts.utilization);
      cell.small.textContent = `${whole(counts.running)} of ${whole(ride.slots)} on board · ${whole(counts.waiting)} waiting · ${whole(counts.home)} home`;
    });
    this.#say();
  }

  /** The caption follows at rest, a moment after the last change, so that a screen reader is not flooded. */
  #say() {
    clearTimeout(this.saying);
    if (this.playing) {
      const words = `Playing ${this.speed.selectedOptions[0].textContent}.`;
      if (this.caption.textContent !== words) this.caption.textContent = words;
      return;
    }
    this.saying = setTimeout(() => { this.caption.textContent = caption(this.rides, this.clock, this.tick); }, 150);
  }

  #sync() {
    clearTimeout(this.syncing);
    if (this.playing) return;
    this.syncing = setTimeout(() => this.#save({ step: this.tick }), SYNC_AFTER);
  }

  /** Tell Python; where no kernel listens any more the picture goes on by itself. */
  #save(values) {
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    try {
      this.model.save_changes();
    } catch (error) {
      console.debug("elevator: nobody to tell", error);
    }
  }

  // ----- playing -----

  toggle() {
    this.#setPlaying(!this.playing);
    this.#save({ playing: this.playing, step: this.tick });
  }

  #setPlaying(playing) {
    if (playing && this.clock.last === 0) playing = false;
    if (playing === this.playing) return;
    this.playing = playing;
    if (playing && this.position >= this.clock.last) this.position = 0;
    this.playButton.replaceChildren(icon(playing ? ICONS.pause : ICONS.play));
    const label = playing ? "Pause" : "Play";
    this.playButton.setAttribute("aria-label", label);
    this.playButton.title = label;
    cancelAnimationFrame(this.request);
    this.before = undefined;
    if (playing) this.request = requestAnimationFrame((now) => this.#frame(now));
    else { this.position = this.tick; this.show(); this.#sync(); }
  }

  #frame(now) {
    const pause = this.calm.matches ? 1000 / SLOW_MOTION_FRAMES : 0;
    const passed = this.before === undefined ? 0 : now - this.before;
    if (this.before === undefined || passed >= pause) {
      this.before = now;
      this.position += (Math.min(passed, 500) / 1000) * this.stepsPerSecond;
      if (this.position >= this.clock.last && !this.#arrive()) return;
      this.show();
    }
    this.request = requestAnimationFrame((next) => this.#frame(next));
  }

  /** At the end: around again, or stop and say so. */
  #arrive() {
    if (this.model.get("loop")) { this.position = 0; return true; }
    this.position = this.clock.last;
    this.#setPlaying(false);
    this.#save({ playing: false, step: this.tick });
    return false;
  }

  #offerSpeeds() {
    const asked = this.model.get("speed");
    const wanted = asked || Math.max(2, this.clock.last / RIDE_SECONDS);
    const nearest = SPEEDS.reduce((best, speed) => (Math.abs(Math.log(speed / wanted)) < Math.abs(Math.log(best / wanted)) ? speed : best));
    this.stepsPerSecond = asked || nearest;
    const choices = [...new Set([...SPEEDS, this.stepsPerSecond])].sort((a, b) => a - b);
    this.speed.replaceChildren(...choices.map((speed) => element("option", { value: String(speed), text: `${speed.toLocaleString("en-US")} steps/s` })));
    this.speed.value = String(this.stepsPerSecond);
  }

  #choseSpeed() {
    this.stepsPerSecond = Number(this.speed.value);
    this.#save({ speed: this.stepsPerSecond });
  }

  #toggleLoop() {
    this.#save({ loop: !this.model.get("loop") });
    this.#showLoop();
  }

  #showLoop() {
    this.loopButton.setAttribute("aria-pressed", String(Boolean(this.model.get("loop"))));
  }

  close() {
    cancelAnimationFrame(this.request);
    clearTimeout(this.saying);
    clearTimeout(this.syncing);
    this.resizes.disconnect();
    this.themes.disconnect();
    this.scheme.removeEventListener("change", this.onScheme);
    for (const [name, handler] of Object.entries(this.handlers)) this.model.off(name, handler);
  }
}

function render({ model, el }) {
  const player = new Player(model, el);
  return () => player.close();
}

export default { render };
