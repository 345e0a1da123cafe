// The elevator while it rides (see live.py for the messages). Sections: rows, words, page.

// ---------- rows: what Python has told, and the ride made of it ----------

const OPEN = -1;
const HORIZON = 20; // steps the picture has room for at first
const BLOCKS_OF = { stays: 2, spans: 1, waits: 0, steps: 1, requests: 0, overheard: 0, reasons: 0 }; // last columns that count blocks

/** Room on the time axis: it grows in leaps, so that a step does not move all that was drawn. */
function horizon(steps) {
  let room = HORIZON;
  for (let leap = 0; room < steps; leap++) room *= [2.5, 2, 2][leap % 3];
  return room;
}

class LiveClock extends Clock {
  constructor(ride) {
    super([ride]);
    this.end = horizon(ride.numSteps);
  }
}

/** Tables as lists of rows, kept up to date by messages. */
class Store {
  constructor() {
    this.number = 0;
    this.#clear();
  }

  #clear() {
    this.head = null;
    this.rows = Object.fromEntries(Object.keys(BLOCKS_OF).map((name) => [name, []]));
    this.riders = new Map();
  }

  /** Take a message in; false where one before it is missing. */
  take(message) {
    if (message.fresh) this.#clear();
    else if (message.number !== this.number + 1) return false;
    this.number = message.number;
    this.head = message.head;
    for (const [name, { rows, changed }] of Object.entries(message.tables)) {
      const held = this.rows[name];
      for (const [place, ...values] of changed) held[place] = values;
      held.length = rows;
    }
    for (const { id, keep, more, ...news } of message.riders) {
      const before = this.riders.get(id) || { id, text: "" };
      this.riders.set(id, { ...before, ...news, text: [...before.text].slice(0, keep).join("") + more });
    }
    return true;
  }

  /** The ride so far, or null before there is one. */
  ride() {
    return this.head && new LiveRide(this.head, this.rows, [...this.riders.values()]);
  }
}

/** Rows in a new order, given by their places. */
const arrange = (rows, order) => order.map((place) => rows[place]);

/** Places of rows in the order of some of their columns. */
function inOrder(rows, ...columns) {
  const compare = (a, b) => columns.reduce((found, column) => found || rows[a][column] - rows[b][column], 0);
  return [...rows.keys()].sort(compare);
}

/** Some columns of rows as the bytes that `table` reads. */
function bytesOfRows(rows, first, end) {
  const all = new Int32Array(rows.length * (end - first));
  for (let column = first; column < end; column++) {
    rows.forEach((row, i) => { all[(column - first) * rows.length + i] = row[column]; });
  }
  return new DataView(all.buffer);
}

/** Rows as they grew -> what a Ride is made of: stays by slot, spans by stay, every end a step. */
function wireOf(head, rows) {
  const steps = head.num_steps;
  const closed = (list, column) => list.map((row) => (row[column] === OPEN ? row.with(column, Math.max(steps, row[column - 1])) : row));
  const seats = inOrder(rows.stays, 0, 2);
  const place = [];
  seats.forEach((stay, i) => { place[stay] = i; });
  const spans = rows.spans.map((row) => row.with(0, place[row[0]]));
  const waits = closed(rows.waits, 2);
  const sorted = {
    stays: closed(arrange(rows.stays, seats), 3),
    spans: arrange(spans, inOrder(spans, 0, 2, 1)),
    waits: arrange(waits, inOrder(waits, 2)),
    steps: rows.steps,
    requests: rows.requests,
    overheard: rows.overheard,
    reasons: rows.reasons,
  };
  const nothing = new DataView(new ArrayBuffer(0));
  const wire = { ...head, clock: "steps", prompts: [], texts: [], times: nothing, arrivals: nothing };
  const columns = { stays: STAY, spans: SPAN, waits: WAIT, steps: STEP, requests: REQUEST, overheard: OVERHEARD, reasons: REASON };
  for (const [name, list] of Object.entries(sorted)) {
    const plain = columns[name].length;
    wire[name] = bytesOfRows(list, 0, plain);
    if (BLOCKS_OF[name]) wire[`${name.slice(0, -1)}_blocks`] = bytesOfRows(list, plain, plain + BLOCKS_OF[name]);
  }
  return wire;
}

/**
 * A ride that is not over. Its newest step shows the car as the step left it and the lobby as it is now; who was
 * put off for good since then is gone.
 */
class LiveRide extends Ride {
  constructor(head, rows, riders) {
    super(wireOf(head, rows));
    this.lobby = rows.waits.filter((row) => row[2] === OPEN).map(([request, , , why]) => ({ request, why }));
    this.riderOf = new Map(riders.filter(({ row }) => row >= 0).map((rider) => [rider.row, rider]));
    // How much of its prompt a rider has read, not how much of what it has been given to read.
    this.prefillOfStay = this.prefillOfStay.map((read, stay) => Math.max(read, this.requests.prompt[this.stays.request[stay]]));
    const aboard = [...this.stays.end.keys()].filter((stay) => this.stays.end[stay] === this.numSteps);
    this.dropped = new Set(aboard.filter((stay) => this.stays.how[stay] === KIND.ABORT));
    this.isEmpty = aboard.every((stay) => this.stays.how[stay] !== 0);
    /** Where the picture stands: at the last step, or after it where nobody is left on board. */
    this.newest = this.isEmpty ? this.numSteps : this.numSteps - 1;
  }

  stayAt(slot, step) {
    const stay = super.stayAt(slot, step);
    return step >= this.newest && this.dropped.has(stay) ? -1 : stay;
  }

  queue(step, most) {
    return step >= this.newest ? this.lobby.slice(0, most) : super.queue(step, most);
  }

  counts(step) {
    const counts = super.counts(step);
    if (step < this.newest) return counts;
    return { ...counts, waiting: this.lobby.length, running: this.isEmpty ? 0 : counts.running - this.dropped.size };
  }

  get rest() {
    return this.lobby.length ? "doors open" : "empty";
  }

  nameOf(request) {
    return this.riderOf.get(request)?.id ?? super.nameOf(request);
  }

  /** {slot, phase} of a request at the newest step, or null where it is not on board. */
  seatOf(request) {
    const step = this.numSteps - 1;
    const stay = this.stays.request.findIndex((other, i) => other === request && this.stays.how[i] === 0);
    return stay < 0 ? null : { slot: this.stays.slot[stay], phase: this.rider(stay, step).phase };
  }
}

// ---------- words ----------

/** What a step did, in a sentence for those who do not see it. */
function liveWords(ride, step) {
  const counts = ride.counts(step);
  const parts = [`${whole(counts.running)} of ${whole(ride.slots)} on board, ${whole(counts.waiting)} waiting`];
  if (ride.capacity && step < ride.numSteps) parts.push(memoryWords(ride, step));
  const names = (stays) => listing(stays.map((stay) => ride.nameOf(ride.stays.request[stay])));
  const all = [...ride.stays.first.keys()];
  const boarded = all.filter((stay) => ride.stays.first[stay] === step);
  const home = [...ride.leavers(Math.min(step + 1, ride.numSteps))].filter((stay) => ride.stays.how[stay] === KIND.FINISH);
  const off = [...ride.leavers(step)].filter((stay) => ride.stays.how[stay] === KIND.PREEMPT);
  if (boarded.length) parts.push(`${names(boarded)} ${boarded.length === 1 ? "boards" : "board"}`);
  if (home.length) parts.push(`${names(home)} ${home.length === 1 ? "gets" : "get"} home`);
  if (off.length) parts.push(`${names(off)} put off, to board again`);
  for (const { request, other } of ride.heardIn(step).slice(0, 3)) parts.push(`${ride.nameOf(request)} overhears ${ride.nameOf(other)}`);
  if (heldWords(ride, step)) parts.push(`the first in line waits: ${heldWords(ride, step)}`);
  if (step >= ride.newest && ride.dropped.size) parts.push(`${names([...ride.dropped])} aborted`);
  return `${placeWords(ride, step)}. ${parts.join("; ")}.`;
}

/** The steps are counted from 0, as everywhere; before the first and when nobody is on board there is none. */
function placeWords(ride, step) {
  if (step < ride.numSteps) return `Step ${whole(step)}`;
  return ride.numSteps ? `After ${countOf(ride.numSteps, "step")}` : "No step yet";
}

const SEAT_WORDS = { prefill: "reads its prompt", decode: "writes", finished: "writes", stalled: "on board, not its turn" };

/** [phase to draw, words] for a rider's line. */
function stateOf(rider, ride) {
  if (rider.state === "home") return ["finished", rider.reason ? `home (${rider.reason})` : "home"];
  if (rider.state === "aborted") return ["waiting", "aborted"];
  if (rider.state === "waiting") return ["waiting", "waits in the lobby"];
  const seat = rider.row >= 0 && ride ? ride.seatOf(rider.row) : null;
  return seat ? [seat.phase, `slot ${seat.slot}, ${SEAT_WORDS[seat.phase]}`] : ["decode", "on board"];
}

// ---------- page: the line to type in, the riders, the player ----------

const ANSWER_WITHIN = 4000; // ms; then the reader is told that nobody answers
const PACES = [1, 2, 5, 10, 0];
const LONGEST_MOVE = 600; // ms that a step's movement takes at most
const HOLD = 0.999; // how far into the newest step the picture goes while someone is on board

/** One rider's line in the list. */
class RiderLine {
  constructor(id, player) {
    this.mark = element("canvas", { class: "elevator-mark", "aria-hidden": "true" });
    this.state = element("span", { class: "elevator-small" });
    this.prompt = element("div", { class: "elevator-prompt" });
    this.text = element("div", { class: "elevator-words" });
    this.button = element("button", { type: "button", "aria-label": `Abort ${id}`, text: "Abort" });
    this.button.addEventListener("click", () => player.ask({ do: "abort", rider: id }));
    const head = element("div", { class: "elevator-rider-head" }, this.mark, element("b", { text: id }), this.state, this.button);
    this.node = element("li", { class: "elevator-rider" }, head, this.prompt, this.text);
    for (const event of ["pointerenter", "focusin"]) this.node.addEventListener(event, () => player.pointAt(id));
    for (const event of ["pointerleave", "focusout"]) this.node.addEventListener(event, () => player.pointAt(null));
  }

  /** Returns whether the abort button went away under the reader's fingers. */
  show(rider, ride, colors) {
    const [phase, words] = stateOf(rider, ride);
    this.phase = phase;
    this.state.textContent = words;
    this.prompt.textContent = rider.prompt;
    this.text.textContent = rider.text;
    this.text.hidden = !rider.text;
    const had = document.activeElement === this.button;
    this.button.hidden = rider.state === "home" || rider.state === "aborted";
    this.draw(colors);
    return had && this.button.hidden;
  }

  draw(colors) {
    const ratio = size(this.mark, 16, 20);
    const ctx = this.mark.getContext("2d");
    ctx.scale(ratio, ratio);
    drawFigure(ctx, colors, 8, 18, 18, this.phase, 0.6);
  }
}

class LivePlayer extends View {
  constructor(model, el) {
    super(model, el, "Live elevator", "Arrow keys look back, end returns to the newest step, space runs and pauses.");
    this.store = new Store();
    this.ride = null;
    this.following = true;
    this.position = 0;
    this.name = Math.random().toString(36).slice(2); // other views of the model hear the same answers
    this.calls = 0;
    this.pending = new Map(); // a call -> what to do when it has been done
    this.lines = new Map();
    this.settings = new Map(); // a setting's name -> its input
    this.#build();
    this.scene = new Scene(this.sceneCanvas);
    this.gantt = new Gantt(this.ganttCanvas);
    this.charts = new Charts(this.chartCanvas);
    scrub(this.ganttCanvas, (x) => this.lookAt(this.clock.tickAt(this.gantt.timeAt(x))));
    this.sceneCanvas.addEventListener("pointermove", (event) => this.#point(event));
    this.sceneCanvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.listen({ "msg:custom": (message) => this.#take(message), "change:speed": () => this.#offerPaces() });
    this.#offerPaces();
    this.ask({ do: "watch" });
  }

  // ----- elements -----

  #build() {
    this.sceneCanvas = element("canvas", { role: "img", "aria-label": "The elevator car, its riders and those who wait", hidden: "" });
    this.ganttCanvas = element("canvas", { role: "img", class: "elevator-gantt", "aria-label": "Slots over time", hidden: "" });
    this.chartCanvas = element("canvas", { role: "img", class: "elevator-charts", "aria-label": "Utilization, tokens and time to first token over time", hidden: "" });
    this.caption.textContent = "No step yet.";
    this.note = element("div", { class: "elevator-note", role: "alert" });
    this.setting = element("div", { class: "elevator-settings", hidden: "" });
    this.list = element("ol", { class: "elevator-riders", "aria-label": "Riders, the last to come first", tabindex: "0", hidden: "" });
    this.root.append(
      this.#boardLine(), this.setting, this.note, this.#controls(), this.sceneCanvas, this.ganttCanvas, this.chartCanvas,
      this.caption, this.list, this.legend, this.tip,
    );
  }

  #boardLine() {
    this.prompt = element("input", { type: "text", "aria-label": "A prompt for a new rider", placeholder: "A prompt for a new rider", autocomplete: "off" });
    // No form: JupyterLab (seen in 4.6) submits none on Enter, and a sandboxed frame none at all.
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      event.stopPropagation();
      this.#board();
    });
    const button = element("button", { type: "button", text: "Board" });
    button.addEventListener("click", () => this.#board());
    return element("div", { class: "elevator-board" }, this.prompt, button);
  }

  /** What was typed stays until the rider is in the lobby. */
  #board() {
    const { value } = this.prompt;
    this.ask({ do: "board", prompt: value }, () => { if (this.prompt.value === value) this.prompt.value = ""; });
  }

  #controls() {
    this.runButton = iconButton("play", "Run", () => this.toggle());
    this.pace = element("select", { "aria-label": "Speed" });
    this.pace.addEventListener("change", () => this.save({ speed: Number(this.pace.value) }));
    this.place = element("span", { class: "elevator-place" });
    return element(
      "div", { class: "elevator-controls" },
      this.runButton,
      iconButton("forward", "One step", () => this.ask({ do: "step" })),
      iconButton("end", "Back to the newest step", () => this.follow()),
      this.pace, this.place,
    );
  }

  /** An input for each thing that can be changed: {name: {value, choices}} or {name: {value, least, most}}. */
  #showSettings(settings) {
    this.setting.hidden = !Object.keys(settings).length;
    for (const [name, { value, choices, least, most }] of Object.entries(settings)) {
      if (!this.settings.has(name)) this.settings.set(name, this.#settingInput(name, choices, least, most));
      const input = this.settings.get(name);
      input.dataset.known = String(value);
      if (document.activeElement !== input || choices) input.value = String(value);
    }
  }

  #settingInput(name, choices, least, most) {
    const input = choices
      ? element("select", {}, ...choices.map((choice) => element("option", { value: String(choice), text: String(choice) })))
      : element("input", { type: "number", min: String(least), max: String(most), step: "1" });
    const tell = () => {
      if (input.value === input.dataset.known) return;
      input.dataset.known = input.value;
      this.ask({ do: "set", name, value: input.value });
    };
    input.addEventListener("change", tell);
    // As above: JupyterLab keeps Enter from making a change of it.
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      tell();
    });
    this.setting.append(element("label", {}, document.createTextNode(`${name} `), input));
    return input;
  }

  // ----- events -----

  keys(event) {
    const inList = event.target === this.list;
    return {
      ArrowLeft: () => this.lookAt(this.tick - 1),
      ArrowRight: () => this.lookAt(this.tick + 1),
      Home: inList ? null : () => this.lookAt(0),
      End: inList ? null : () => this.follow(),
      " ": () => this.toggle(),
    };
  }

  #point(event) {
    const box = this.sceneCanvas.getBoundingClientRect();
    const found = this.ride && this.scene.riderAt(event.clientX - box.left, event.clientY - box.top, this.position);
    this.tip.hidden = !found;
    if (!found) return;
    const { done, phase, request } = this.ride.rider(found.stay, found.step);
    const known = this.ride.riderOf.get(request);
    const lines = [`${this.ride.nameOf(request)}: ${countOf(done, "token")}, ${STATE_WORDS[phase]}`, known?.prompt, known?.text && `→ ${known.text}`];
    lines.push(timesWords(this.ride, request, this.clock, 0, found.step));
    this.showTip(lines.filter(Boolean).join("\n"), event.clientX, event.clientY);
  }

  /** Set off the slot of a rider in the list, or nobody's. */
  pointAt(id) {
    const rider = this.store.riders.get(id);
    this.scene.pointed = this.gantt.pointed = rider && rider.row >= 0 && this.ride ? { index: 0, request: rider.row } : null;
    this.show();
  }

  // ----- to Python and back -----

  /** Ask Python for something; `then` runs when it has been done. */
  ask(what, then = () => {}) {
    this.calls += 1;
    const call = `${this.name}-${this.calls}`;
    this.pending.set(call, then);
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.#miss(), ANSWER_WITHIN);
    try {
      this.model.send({ ...what, call });
    } catch (error) {
      console.debug("live elevator: nobody to tell", error);
      this.#miss();
    }
  }

  /** A busy kernel answers late, one that is gone never does: the reader is told either way. */
  #miss() {
    this.note.textContent = "The kernel does not answer: it is busy with another cell, or it is gone. Run the notebook's cells again if this stays.";
  }

  #take(message) {
    if (!this.store.take(message)) {
      if (!this.missing) this.ask({ do: "watch" });
      this.missing = true;
      return;
    }
    this.missing = false;
    this.running = message.running;
    this.note.textContent = message.note;
    this.#showSettings(message.settings);
    this.#answered(message.answer);
    showPlaying(this.runButton, this.running, "Run");
    this.#news(message);
  }

  #answered(answer) {
    clearTimeout(this.patience);
    if (!answer) return;
    if (!answer.refused) this.pending.get(answer.call)?.();
    this.pending.delete(answer.call);
  }

  // ----- news -----

  #news(message) {
    const moved = Object.values(message.tables).some(({ changed }) => changed.length) || message.fresh;
    if (moved) this.#newRide();
    this.#showRiders(message.riders.map(({ id }) => id), message.fresh);
    if (moved) this.#say();
  }

  #newRide() {
    const before = this.ride;
    this.ride = this.store.ride();
    this.sceneCanvas.hidden = this.ganttCanvas.hidden = this.chartCanvas.hidden = !this.ride;
    if (!this.ride) return;
    this.clock = new LiveClock(this.ride);
    this.#layout();
    if (!this.following) { this.position = Math.min(this.position, this.ride.newest); this.show(); return; }
    this.#moveFrom(before);
  }

  /** From the step that was shown to the newest one; across more than one, only the last is seen to move. */
  #moveFrom(before) {
    const { newest, isEmpty } = this.ride;
    const end = Math.max(0, isEmpty ? newest : newest + HOLD);
    const stepped = before && this.ride.numSteps > before.numSteps;
    cancelAnimationFrame(this.request);
    this.moving = Boolean(stepped) && !this.calm.matches;
    if (!this.moving) { this.position = this.calm.matches ? Math.max(0, newest) : end; this.show(); return; }
    const start = Math.max(0, this.ride.numSteps - 1);
    const lasts = Math.min(LONGEST_MOVE, this.model.get("speed") ? 800 / this.model.get("speed") : 120);
    const began = performance.now();
    const frame = (now) => {
      const part = Math.min(1, Math.max(0, now - began) / lasts);
      this.position = start + (end - start) * part;
      this.moving = part < 1;
      this.show();
      if (this.moving) this.request = requestAnimationFrame(frame);
    };
    frame(began);
  }

  #showRiders(ids, all) {
    if (all) this.#forget();
    const changed = new Set(ids);
    for (const rider of this.store.riders.values()) {
      if (!this.lines.has(rider.id)) {
        this.lines.set(rider.id, new RiderLine(rider.id, this));
        this.list.prepend(this.lines.get(rider.id).node);
      } else if (!changed.has(rider.id) && (rider.state === "home" || rider.state === "aborted")) continue;
      if (this.colors && this.lines.get(rider.id).show(rider, this.ride, this.colors)) this.prompt.focus();
    }
    this.list.hidden = !this.lines.size;
  }

  /** Lines of riders that Python no longer knows: it has started over. */
  #forget() {
    for (const [id, line] of this.lines) {
      if (this.store.riders.has(id)) continue;
      line.node.remove();
      this.lines.delete(id);
    }
  }

  #offerPaces() {
    const speed = this.model.get("speed");
    const choices = [...new Set([...PACES.slice(0, -1), speed].filter(Boolean))].sort((a, b) => a - b).concat(0);
    const words = (pace) => (pace ? `${pace.toLocaleString("en-US")} ${pace === 1 ? "step" : "steps"}/s` : "full speed");
    this.pace.replaceChildren(...choices.map((pace) => element("option", { value: String(pace), text: words(pace) })));
    this.pace.value = String(speed);
  }

  // ----- looks -----

  dress() {
    this.#layout();
    for (const rider of this.store.riders.values()) this.lines.get(rider.id)?.show(rider, this.ride, this.colors);
  }

  #layout() {
    if (!this.width || !this.ride) return;
    const { doors } = this.scene;
    this.scene.layout([this.ride], this.clock, this.width, this.colors);
    if (doors.length) this.scene.doors = doors;
    this.gantt.layout([this.ride], this.clock, this.width, this.colors);
    this.charts.layout([this.ride], this.clock, this.width, this.colors);
    this.#drawLegend();
  }

  #drawLegend() {
    const entries = legendFor([this.ride]);
    const key = JSON.stringify([entries, this.colors]);
    if (key === this.legendKey) return;
    this.legendKey = key;
    this.legend.replaceChildren(...entries.map(([phase, words]) => {
      const mark = element("canvas", { "aria-hidden": "true" });
      drawMark(mark, this.colors, phase);
      return element("span", {}, mark, document.createTextNode(words));
    }), element("span", { class: "elevator-hint", text: "number: tokens so far" }));
  }

  // ----- where we are -----

  get tick() {
    return Math.min(Math.floor(this.position), this.clock?.last ?? 0);
  }

  /** Stand at an earlier step; the ride goes on meanwhile. */
  lookAt(tick) {
    if (!this.ride) return;
    if (tick >= this.ride.newest) { this.follow(); return; }
    cancelAnimationFrame(this.request);
    this.following = false;
    this.position = Math.max(0, tick);
    this.show();
    this.#say();
  }

  /** Back to the newest step, and with it from now on. */
  follow() {
    this.following = true;
    if (!this.ride) return;
    this.#moveFrom(null);
    this.#say();
  }

  show() {
    if (!this.width || !this.ride) return;
    const motion = this.following && !this.calm.matches;
    if (motion && !this.moving) this.scene.draw(this.tick, false); // at rest no door stands half open
    this.scene.draw(motion ? this.position : this.tick, motion);
    const until = this.following ? this.#edge() : this.tick;
    this.gantt.draw(until);
    this.charts.draw(until);
    const back = this.following ? "" : ", looking back";
    this.place.textContent = `${placeWords(this.ride, this.tick).toLowerCase()}${back}`;
  }

  /** The newest step is over, so the line stands at its end. */
  #edge() {
    return this.calm.matches ? this.clock.last : Math.max(this.position, this.clock.last - 1);
  }

  /** A moment after the last news, so that a screen reader is not flooded. */
  #say() {
    if (this.saying) return;
    this.saying = setTimeout(() => {
      this.saying = undefined;
      if (this.ride) this.caption.textContent = liveWords(this.ride, this.following ? this.ride.newest : this.tick);
    }, this.running ? 1000 : 150);
  }

  toggle() {
    this.ask({ do: this.running ? "pause" : "run" });
  }

  close() {
    super.close();
    clearTimeout(this.patience);
  }
}

function render({ model, el }) {
  const player = new LivePlayer(model, el);
  return () => player.close();
}

export default { render };
