// A packed Trace (see ride.py for the columns): who sits where at a step. Python sends it once; every frame is worked out
// here, so playing sends nothing back.

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
const REASON = ["step", "heldBy", "blocksShort"];
const OVERHEARD = ["step", "request", "other", "blocks"];

const bytesOf = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);

/** Bytes of an int32 table -> its columns by name, and `rows`. */
function table(view, names) {
  const all = new Int32Array(bytesOf(view));
  const rows = all.length / names.length;
  const columns = { rows };
  names.forEach((name, i) => { columns[name] = all.subarray(i * rows, (i + 1) * rows); });
  return columns;
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
    this.prompts = wire.prompts;
    this.texts = wire.texts;
    this.poisoned = wire.poisoned;
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
    this.arrivals = wire.arrivals.byteLength ? new Float64Array(bytesOf(wire.arrivals)) : null;
    this.overheard = table(wire.overheard, OVERHEARD);
    this.reasons = wire.reasons && table(wire.reasons, REASON); // rides kept from earlier have none
    this.stayStart = offsets(this.stays.slot, this.slots);
    this.spanStart = offsets(this.spans.stay, this.stays.rows);
    this.tokensThrough = this.#countTokens();
    this.prefillOfStay = this.#countPrefill();
    this.finishes = Int32Array.from(this.stays.end.filter((_, i) => this.stays.how[i] === KIND.FINISH)).sort();
    this.byEnd = Int32Array.from(this.stays.end.keys()).sort((a, b) => this.stays.end[a] - this.stays.end[b]);
    this.endsInOrder = this.byEnd.map((stay) => this.stays.end[stay]);
    this.boardings = Int32Array.from(this.stays.first).sort();
    this.stalls = this.#stalls();
    this.firstStep = this.#firstSteps();
    this.staysByRequest = Int32Array.from(this.stays.request.keys()).sort(
      (a, b) => this.stays.request[a] - this.stays.request[b] || this.stays.first[a] - this.stays.first[b],
    );
    const requests = this.staysByRequest.map((stay) => this.stays.request[stay]);
    this.requestStart = offsets(requests, this.requests.rows);
  }

  /** The step that gave each request its first token, or -1. */
  #firstSteps() {
    const { kind, stay, first, before, rows } = this.spans;
    const steps = new Int32Array(this.requests.rows).fill(-1);
    for (let i = 0; i < rows; i++) {
      if (kind[i] === KIND.DECODE && before[i] === 0) steps[this.stays.request[stay[i]]] = first[i];
    }
    return steps;
  }

  /** Where each request's wait began on a clock: its arrival, or the step that could have boarded it. */
  arrivalsOn(times, unit) {
    if (this.arrivals && unit === this.clock) return this.arrivals;
    return (this.boardable ??= this.#boardable(times));
  }

  #boardable(times) {
    const arrivals = new Float64Array(this.requests.rows).fill(NaN);
    const { request, first, why, rows } = this.waits;
    for (let i = 0; i < rows; i++) if (why[i] === KIND.ARRIVE) arrivals[request[i]] = times[first[i]];
    return arrivals;
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

  /** The stays of a request, the first one first. */
  staysOf(request) {
    return this.staysByRequest.subarray(this.requestStart[request], this.requestStart[request + 1]);
  }

  /** The stay of a request that is on board in `step`, or -1. */
  stayOf(request, step) {
    for (const stay of this.staysOf(request)) {
      if (this.stays.first[stay] <= step && step < this.stays.end[stay]) return stay;
    }
    return -1;
  }

  /** Who hears whom in `step`: {request, other, blocks}. */
  heardIn(step) {
    const { request, other, blocks } = this.overheard;
    const rows = [];
    for (let i = after(this.overheard.step, step - 1); i < after(this.overheard.step, step); i++) {
      rows.push({ request: request[i], other: other[i], blocks: blocks[i] });
    }
    return rows;
  }

  /** Whether the rider of a stay has read words that are not its own by `step`. */
  hasOverheard(stay, step) {
    const { overheard, stays } = this;
    for (let i = after(overheard.step, stays.first[stay] - 1); i < after(overheard.step, step); i++) {
      if (overheard.request[i] === stays.request[stay]) return true;
    }
    return false;
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

  /** Why the first in line did not board in `step`: {heldBy, blocksShort}, both 0 where that is not known. */
  reasonAt(step) {
    const at = this.reasons && step < this.numSteps ? after(this.reasons.step, step) - 1 : -1;
    return at < 0 ? { heldBy: 0, blocksShort: 0 } : { heldBy: this.reasons.heldBy[at], blocksShort: this.reasons.blocksShort[at] };
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
    const twice = this.#inTwoTables(owners, step);
    this.floor = { step, held, free, shared, saved, other: Math.max(0, held - sum), owners, lost, twice, poisoned: this.poisoned };
    return this.floor;
  }

  /** How many blocks stand in two tables, in all; each owner is told how many of its own at most. */
  #inTwoTables(owners, step) {
    const heard = this.heardIn(step);
    for (const owner of owners) {
      const mine = this.stays.request[owner.stay];
      owner.twice = heard.reduce((most, { request, other, blocks }) => (request === mine || other === mine ? Math.max(most, blocks) : most), 0);
    }
    return heard.reduce((sum, { blocks }) => sum + blocks, 0);
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
