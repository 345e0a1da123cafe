// The elevator: plays packed Traces, each in a shaft of its own, on one clock.

class Player extends Reel {
  constructor(model, el) {
    super(model, el, "Elevator");
    this.chosen = null; // {index, request}: the rider that the reader follows
    this.hovered = null; // the same, under the pointer
    this.note = element("div", { class: "elevator-note" });
    this.sceneCanvas = element("canvas", { role: "img" });
    this.picker = element("button", { type: "button", class: "elevator-pick", "aria-label": "Riders", "aria-pressed": "false" });
    this.ganttCanvas = element("canvas", { role: "img", class: "elevator-gantt" });
    this.chartCanvas = element("canvas", { role: "img", class: "elevator-charts" });
    this.stats = element("div", { class: "elevator-stats" });
    this.root.append(
      this.note, element("div", { class: "elevator-scene" }, this.sceneCanvas, this.picker), this.stats, this.ganttCanvas,
      this.slider, this.controls, this.caption, this.chartCanvas, this.legend, this.tip,
    );
    this.scene = new Scene(this.sceneCanvas);
    this.gantt = new Gantt(this.ganttCanvas);
    this.charts = new Charts(this.chartCanvas);
    this.#listen();
    this.load();
  }

  // ----- events -----

  #listen() {
    scrub(this.ganttCanvas, (x) => this.go(this.clock.tickAt(this.gantt.timeAt(x))));
    this.sceneCanvas.addEventListener("pointermove", (event) => this.#point(event));
    this.sceneCanvas.addEventListener("pointerleave", () => this.#hover(null));
    this.sceneCanvas.addEventListener("click", (event) => this.#choose(this.#riderAt(event)));
    this.picker.addEventListener("focus", () => this.#startPicking());
    this.picker.addEventListener("blur", () => { this.tip.hidden = true; });
    this.picker.addEventListener("click", () => this.#choose(this.chosen));
    this.listen({ "change:_rides": () => this.load(), "change:_note": () => this.label() });
  }

  /** On the picker the arrows up and down go from rider to rider. */
  keys(event) {
    if (event.target !== this.picker) return super.keys(event);
    const keys = { ...super.keys(event), ArrowUp: () => this.#pick(-1), ArrowDown: () => this.#pick(1) };
    return { ...keys, Escape: () => this.#choose(null) };
  }

  #riderAt(event) {
    const box = this.sceneCanvas.getBoundingClientRect();
    const found = this.scene.riderAt(event.clientX - box.left, event.clientY - box.top, this.position);
    return found && { index: found.index, request: found.ride.stays.request[found.stay] };
  }

  #point(event) {
    const box = this.sceneCanvas.getBoundingClientRect();
    const blocks = this.scene.blocksAt(event.clientX - box.left, event.clientY - box.top, this.position);
    const owner = blocks?.run.owner;
    const rider = owner ? { index: blocks.index, request: blocks.ride.stays.request[owner.stay] } : this.#riderAt(event);
    this.#hover(rider);
    if (rider) this.showTip(this.#riderWords(rider), event.clientX, event.clientY);
    else if (blocks) this.showTip(runWords(blocks.run), event.clientX, event.clientY);
  }

  #hover(rider) {
    this.tip.hidden = true;
    if (this.hovered?.index === rider?.index && this.hovered?.request === rider?.request) return;
    this.hovered = rider;
    if (!this.playing) this.show();
  }

  // ----- the rider that the reader follows -----

  /** Follow a rider through the ride, or, if it is followed already, nobody. */
  #choose(rider) {
    const same = this.pinned && rider && this.chosen.index === rider.index && this.chosen.request === rider.request;
    this.pinned = Boolean(rider) && !same;
    this.chosen = rider && (!same || document.activeElement === this.picker) ? rider : null;
    this.picker.setAttribute("aria-pressed", String(this.pinned));
    this.show();
  }

  #startPicking() {
    this.chosen ??= this.#onBoard()[0] ?? null;
    this.show();
    if (this.chosen) this.#tellChosen();
  }

  /** The rider before or after the chosen one, in order of shaft and slot. */
  #pick(change) {
    const all = this.#onBoard();
    if (!all.length) return;
    const at = all.findIndex(({ index, request }) => index === this.chosen?.index && request === this.chosen.request);
    this.chosen = all[(at + change + all.length) % all.length];
    this.pinned = false;
    this.picker.setAttribute("aria-pressed", "false");
    this.show();
    this.#tellChosen();
  }

  #onBoard() {
    return this.rides.flatMap((ride, index) => {
      const step = this.clock.stepOf[index][this.tick];
      const stays = Array.from({ length: Math.min(ride.slots, CELLS_TO) }, (_, slot) => ride.stayAt(slot, step));
      return stays.filter((stay) => stay >= 0).map((stay) => ({ index, request: ride.stays.request[stay] }));
    });
  }

  #tellChosen() {
    this.#tipChosen();
    clearTimeout(this.saying);
    this.caption.textContent = this.#riderWords(this.chosen).replaceAll("\n", ". ");
  }

  /** The words of the chosen rider, below it. */
  #tipChosen() {
    const box = this.picker.getBoundingClientRect();
    this.showTip(this.#riderWords(this.chosen), box.left - 12, box.bottom - 8);
  }

  #riderWords({ index, request }) {
    return riderWords(this.rides[index], request, this.clock, index, this.tick);
  }

  /** The picker stands over the chosen rider; where that one is not on board, at its shaft's lobby. */
  #placePicker(spot) {
    this.picker.hidden = !this.rides.some(({ numSteps }) => numSteps);
    const words = this.chosen ? this.#riderWords(this.chosen) : "Riders: arrow keys up and down go from one to the next, enter follows one";
    if (this.picker.ariaLabel !== words) this.picker.ariaLabel = words;
    const { x, y, wide, tall } = spot;
    this.picker.style.transform = `translate(${x}px, ${y}px)`;
    this.picker.style.width = `${wide}px`;
    this.picker.style.height = `${tall}px`;
  }

  // ----- a new ride -----

  load() {
    this.rides = (this.model.get("_rides") || []).map((wire) => new Ride(wire));
    this.chosen = this.hovered = null;
    this.pinned = false;
    this.clock = new Clock(this.rides);
    this.label();
    this.#makeStats();
    this.#makeLegend();
    this.wind(this.clock);
  }

  label() {
    super.label();
    this.note.textContent = this.model.get("_note");
    const names = (this.rides || []).map((ride) => ride.name).join(", ");
    const memory = this.rides?.some((ride) => ride.capacity) ? ", above their K/V blocks" : "";
    this.sceneCanvas.setAttribute("aria-label", `Elevator cars: ${names}${memory}`);
    this.ganttCanvas.setAttribute("aria-label", `Slots over time: ${names}`);
    this.chartCanvas.setAttribute("aria-label", `Utilization, tokens and time to first token over time: ${names}`);
  }

  #makeStats() {
    this.statCells = this.rides.map(() => {
      const big = element("span", { class: "elevator-big" });
      const meter = element("span", { class: "elevator-meter" }, element("i"));
      const small = element("span", { class: "elevator-small" });
      const head = element("div", {}, big, element("span", { class: "elevator-small", text: " utilization so far" }));
      return { node: element("div", { class: "elevator-stat" }, head, meter, small), big, meter: meter.firstChild, small };
    });
    this.stats.replaceChildren(...this.statCells.map((cell) => cell.node));
    this.stats.style.gridTemplateColumns = `repeat(${Math.max(1, this.rides.length)}, 1fr)`;
  }

  #makeLegend() {
    this.legend.replaceChildren(...legendFor(this.rides).map(([phase, words]) => {
      const mark = element("canvas", { class: "elevator-mark", "data-phase": phase, "aria-hidden": "true" });
      return element("span", {}, mark, document.createTextNode(words));
    }), element("span", { class: "elevator-hint", text: legendHint(this.rides) }));
  }

  dress() {
    for (const mark of this.legend.querySelectorAll("canvas")) drawMark(mark, this.colors, mark.dataset.phase);
    this.scene.layout(this.rides, this.clock, this.width, this.colors);
    this.gantt.layout(this.rides, this.clock, this.width, this.colors);
    this.chartCanvas.hidden = !this.clock.last;
    if (this.clock.last) this.charts.layout(this.rides, this.clock, this.width, this.colors);
  }

  // ----- a frame -----

  draw(position, motion) {
    const rider = this.hovered ?? this.chosen;
    this.scene.pointed = rider;
    this.gantt.pointed = rider;
    this.scene.draw(position, motion);
    this.gantt.draw(position);
    if (this.clock.last) this.charts.draw(position);
    this.#placePicker(this.scene.spotOf(this.chosen, position, motion));
  }

  write() {
    this.rides.forEach((ride, i) => {
      const counts = ride.counts(this.clock.stepOf[i][this.tick]);
      const cell = this.statCells[i];
      cell.big.textContent = percent(counts.utilization);
      cell.meter.style.width = percent(counts.utilization);
      cell.small.textContent = `${whole(counts.running)} of ${whole(ride.slots)} on board · ${whole(counts.waiting)} waiting · ${whole(counts.home)} home`;
    });
    if (this.chosen && document.activeElement === this.picker) this.#tipChosen();
  }

  words() {
    return caption(this.rides, this.clock, this.tick);
  }
}

function render({ model, el }) {
  const player = new Player(model, el);
  return () => player.close();
}

export default { render };
