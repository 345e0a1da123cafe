// The box that every widget stands in, the clock, and the player of whatever has steps.

// ---------- view: title, width, theme, keys, and what Python hears ----------

class View {
  /** `kind` names the widget to a screen reader where it has no title, `hint` says which keys it knows. */
  constructor(model, el, kind, hint) {
    Object.assign(this, { model, kind, hint });
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.root = element("div", { class: "elevator", tabindex: "0", role: "group", "data-lm-suppress-shortcuts": "true" });
    this.title = element("div", { class: "elevator-title" });
    this.caption = element("div", { class: "elevator-caption", "aria-live": "polite" });
    this.legend = element("div", { class: "elevator-legend" });
    this.tip = element("div", { class: "elevator-tip", hidden: "" });
    this.root.append(this.title);
    el.append(this.root);
  }

  /** Follow the page and the model; `handlers` by the model's event. */
  listen(handlers) {
    this.root.addEventListener("keydown", (event) => this.#key(event));
    this.resizes = new ResizeObserver(() => this.fit());
    this.resizes.observe(this.root);
    this.onTheme = () => this.redress();
    this.themes = new MutationObserver(this.onTheme);
    this.themes.observe(document.body, { attributes: true, attributeFilter: [...THEME_MARKS, "class"] });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.onTheme);
    this.handlers = { "change:title": () => this.label(), ...handlers };
    for (const [name, handler] of Object.entries(this.handlers)) this.model.on(name, handler);
    this.label();
  }

  #key(event) {
    const typing = event.target.tagName === "SELECT" || (event.target.tagName === "INPUT" && event.target.type !== "range");
    if (event.altKey || event.ctrlKey || event.metaKey || typing) return;
    const act = this.keys(event)[event.key];
    if (!act || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  label() {
    const title = this.model.get("title");
    this.title.textContent = title;
    this.title.hidden = !title;
    this.root.setAttribute("aria-label", `${title || this.kind}. ${this.hint}`);
  }

  redress() {
    this.width = 0;
    this.fit();
  }

  /** Lay out for the width we have. Only a page's element has a width and colors, so the first call may be early. */
  fit() {
    const width = Math.floor(this.root.clientWidth) - 6;
    if (width < 40 || width === this.width) return;
    this.width = width;
    this.root.dataset.theme = isDark() ? "dark" : "light";
    this.colors = readColors(this.root);
    this.dress();
    this.show();
  }

  /** Text, never markup, near a point of the window. */
  showTip(words, clientX, clientY) {
    this.tip.hidden = false;
    this.tip.textContent = words;
    const base = this.root.getBoundingClientRect();
    const right = base.width - this.tip.offsetWidth - 4;
    this.tip.style.left = `${Math.max(0, Math.min(clientX - base.left + 12, right))}px`;
    this.tip.style.top = `${clientY - base.top + 14}px`;
  }

  /** Values for Python; where no kernel listens any more, the picture goes on by itself. */
  save(values) {
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    try {
      this.model.save_changes();
    } catch (error) {
      console.debug("elevator: nobody to tell", error);
    }
  }

  close() {
    cancelAnimationFrame(this.request);
    clearTimeout(this.saying);
    this.resizes.disconnect();
    this.themes.disconnect();
    this.scheme.removeEventListener("change", this.onTheme);
    for (const [name, handler] of Object.entries(this.handlers)) this.model.off(name, handler);
  }
}

function iconButton(name, label, act) {
  const node = element("button", { type: "button", "aria-label": label, title: label }, icon(ICONS[name]));
  node.addEventListener("click", act);
  return node;
}

/** Make a play button say what it will do. */
function showPlaying(button, playing, idle = "Play") {
  const label = playing ? "Pause" : idle;
  button.replaceChildren(icon(playing ? ICONS.pause : ICONS.play));
  button.setAttribute("aria-label", label);
  button.title = label;
}

/** Call `to` with the place in CSS pixels wherever a canvas is pressed or dragged over. */
function scrub(canvas, to) {
  const place = (event) => to(event.clientX - canvas.getBoundingClientRect().left);
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); place(event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) place(event); });
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

  placeWords(tick) {
    if (this.unit === "steps") return `step ${whole(tick)} of ${whole(this.last)}`;
    return `${this.times[tick].toFixed(2)} of ${this.end.toFixed(2)} s`;
  }

  /** The tick that a time falls in. */
  tickAt(time) {
    return Math.max(0, after(this.times, time) - 1);
  }
}

// ---------- reel: play, step, scrub, speed, loop ----------

const SPEEDS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
const RIDE_SECONDS = 20;
const SLOW_MOTION_FRAMES = 4; // pictures a second where motion is to be reduced
const SYNC_AFTER = 200; // ms of rest before Python hears of a new step
const WRITE_EVERY = 100; // ms between two changes of words and numbers while it plays

/**
 * A view of something with steps. Who extends it gives `dress()` for a new width or theme, `draw(position, motion)`,
 * `words()` for the caption at rest and maybe `write()` for numbers, and calls `wind(clock)` when it has something to play.
 */
class Reel extends View {
  constructor(model, el, kind) {
    super(model, el, kind, "Arrow keys step, space plays, home and end jump.");
    this.position = 0;
    this.playing = false;
    this.slider = element("input", { type: "range", min: "0", step: "any", value: "0", "aria-label": "Step" });
    this.slider.addEventListener("input", () => this.go(this.clock.tickAt(Number(this.slider.value))));
    this.playButton = iconButton("play", "Play", () => this.toggle());
    this.loopButton = iconButton("loop", "Loop", () => this.#toggleLoop());
    this.speed = element("select", { "aria-label": "Speed" });
    this.speed.addEventListener("change", () => this.#choseSpeed());
    this.place = element("span", { class: "elevator-place" });
    this.controls = element(
      "div", { class: "elevator-controls" },
      iconButton("start", "To the start", () => this.go(0)),
      iconButton("back", "One step back", () => this.stepBy(-1)),
      this.playButton,
      iconButton("forward", "One step forward", () => this.stepBy(1)),
      iconButton("end", "To the end", () => this.go(this.clock.last)),
      this.loopButton, this.speed, this.place,
    );
  }

  listen(handlers) {
    super.listen({
      "change:step": () => { if (this.model.get("step") !== this.tick) this.go(this.model.get("step")); },
      "change:playing": () => this.setPlaying(this.model.get("playing")),
      "change:speed": () => this.#offerSpeeds(),
      "change:loop": () => this.showLoop(),
      ...handlers,
    });
  }

  keys() {
    const leap = Math.max(1, Math.round(this.clock.last / 10));
    return {
      ArrowLeft: () => this.stepBy(-1),
      ArrowRight: () => this.stepBy(1),
      ArrowDown: () => this.stepBy(-1),
      ArrowUp: () => this.stepBy(1),
      PageDown: () => this.stepBy(-leap),
      PageUp: () => this.stepBy(leap),
      Home: () => this.go(0),
      End: () => this.go(this.clock.last),
      " ": () => this.toggle(),
    };
  }

  /** Something new to play, from the model's step. */
  wind(clock) {
    this.clock = clock;
    this.slider.max = String(clock.end);
    this.position = Math.min(this.model.get("step"), clock.last);
    this.showLoop();
    this.#offerSpeeds();
    this.redress();
    this.setPlaying(this.model.get("playing"));
  }

  // ----- where we are -----

  get tick() {
    return Math.min(Math.floor(this.position), this.clock.last);
  }

  /** Between two ticks while it plays, unless motion is to be reduced. */
  get moment() {
    return this.playing && !this.calm.matches ? this.position : this.tick;
  }

  go(tick) {
    this.position = Math.max(0, Math.min(this.clock.last, tick));
    this.before = undefined;
    this.show();
    this.#sync();
  }

  stepBy(change) {
    this.setPlaying(false);
    this.go(this.tick + change);
  }

  show() {
    if (!this.width) return;
    this.draw(this.moment, this.playing && !this.calm.matches);
    const now = performance.now();
    if (this.playing && now - (this.wroteAt || 0) < WRITE_EVERY) return;
    this.wroteAt = now;
    const place = this.clock.placeWords(this.tick);
    this.slider.value = String(this.clock.times[this.tick]);
    this.slider.setAttribute("aria-valuetext", place);
    this.place.textContent = place;
    this.write();
    this.#say();
  }

  write() {}

  /** The caption follows at rest, a moment after the last change, so that a screen reader is not flooded. */
  #say() {
    clearTimeout(this.saying);
    if (this.playing) {
      const words = `Playing ${this.speed.selectedOptions[0].textContent}.`;
      if (this.caption.textContent !== words) this.caption.textContent = words;
      return;
    }
    this.saying = setTimeout(() => { this.caption.textContent = this.words(); }, 150);
  }

  #sync() {
    clearTimeout(this.syncing);
    if (this.playing) return;
    this.syncing = setTimeout(() => this.save({ step: this.tick }), SYNC_AFTER);
  }

  // ----- playing -----

  toggle() {
    this.setPlaying(!this.playing);
    this.save({ playing: this.playing, step: this.tick });
  }

  setPlaying(wanted) {
    const playing = wanted && this.clock.last > 0;
    if (playing === this.playing) return;
    this.playing = playing;
    if (playing && this.position >= this.clock.last) this.position = 0;
    showPlaying(this.playButton, playing);
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
    this.setPlaying(false);
    this.save({ playing: false, step: this.tick });
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
    this.save({ speed: this.stepsPerSecond });
  }

  #toggleLoop() {
    this.save({ loop: !this.model.get("loop") });
    this.showLoop();
  }

  showLoop() {
    this.loopButton.setAttribute("aria-pressed", String(Boolean(this.model.get("loop"))));
  }

  close() {
    super.close();
    clearTimeout(this.syncing);
  }
}
