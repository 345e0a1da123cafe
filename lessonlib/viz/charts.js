// Three small charts on the common clock: utilization, tokens a second (or a step), time to first token.

// ---------- charts: what each ride gives, over time ----------

const CHART_TALL = 62;
const CHART_SIGN = 33; // above a chart: its name, and below that every ride's value now
const CHART_AXIS = 4;
const CHART_GAP = 16;
const CHART_LEFT = 8; // as the Gantt's
const WINDOW = 1 / 40; // share of the whole time that a rate is taken over
const DOTS_TO = 300;
const DASHES = [[], [5, 3], [1.5, 2.5], [7, 2, 1.5, 2]];

/** Middle of numbers in order. */
function middle(sorted) {
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Tokens, steps and time of one ride in a window of the clock that ends at each column. */
class Rates {
  constructor(ride, times, end, columns) {
    this.ride = ride;
    this.times = times;
    this.window = end * WINDOW;
    this.columns = Array.from({ length: columns + 1 }, (_, column) => this.at((end * column) / columns));
  }

  /** {steps, utilization, rate} over the window before `time`, at least the step that runs then; null when it is over. */
  at(time) {
    const { ride, times } = this;
    if (!ride.numSteps || time > times[ride.numSteps]) return null;
    const last = Math.min(ride.numSteps, Math.max(1, after(times, time - 1e-9)));
    const first = Math.min(last - 1, Math.max(0, after(times, time - this.window) - 1));
    const given = ride.tokensThrough[last - 1] - (first ? ride.tokensThrough[first - 1] : 0);
    return {
      steps: [first, last],
      utilization: given / (ride.slots * (last - first)),
      rate: given / (times[last] - times[first] || 1),
    };
  }
}

/** Every first token of one ride: when it came, how long after arrival; and the median up to any moment. */
class FirstTokens {
  constructor(ride, times, unit) {
    const arrivals = ride.arrivalsOn(times, unit);
    const found = [];
    ride.firstStep.forEach((step, request) => {
      const end = times[step + 1];
      if (step >= 0 && arrivals[request] <= end) found.push([end, end - arrivals[request]]);
    });
    found.sort((a, b) => a[0] - b[0]);
    this.came = Float64Array.from(found, ([end]) => end);
    this.took = Float64Array.from(found, ([, took]) => took);
    this.most = this.took.reduce((most, took) => Math.max(most, took), 0);
    this.known = { count: 0, sorted: [] };
  }

  /** Median of all that came by `time`; NaN before the first. */
  medianBy(time) {
    const count = after(this.came, time + 1e-9);
    if (count < this.known.count) this.known = { count: 0, sorted: [] };
    const { sorted } = this.known;
    if (count - this.known.count > 50) {
      this.known.sorted = Array.from(this.took.slice(0, count).sort());
    } else {
      for (const took of this.took.subarray(this.known.count, count)) sorted.splice(after(sorted, took), 0, took);
    }
    this.known.count = count;
    return count ? middle(this.known.sorted) : NaN;
  }

  /** [time, median of those that came in the window before it] for `count` windows; empty ones are left out. */
  windows(end, count) {
    const points = [];
    for (let i = 0; i < count; i++) {
      const from = after(this.came, (end * i) / count);
      const to = after(this.came, (end * (i + 1)) / count);
      if (to > from) points.push([(end * (i + 0.5)) / count, middle(this.took.slice(from, to).sort())]);
    }
    return points;
  }
}

class Charts {
  constructor(canvas) {
    this.canvas = canvas;
    this.ctx = canvas.getContext("2d");
    this.faint = document.createElement("canvas");
    this.strong = document.createElement("canvas");
  }

  layout(rides, clock, width, colors) {
    Object.assign(this, { rides, clock, width, colors });
    const wide = (width - 2 * CHART_LEFT - 2 * CHART_GAP) / 3;
    this.rates = rides.map((ride, i) => new Rates(ride, clock.rideTimes[i], clock.end, Math.round(wide)));
    this.firsts = rides.map((ride, i) => new FirstTokens(ride, clock.rideTimes[i], clock.unit));
    this.charts = [this.#utilization(), this.#tokens(), this.#ttft()].map((chart, i) => (
      { ...chart, left: CHART_LEFT + i * (wide + CHART_GAP), wide }
    ));
    this.top = CHART_SIGN + 14 * Math.max(0, rides.length - 1);
    this.height = this.top + CHART_TALL + CHART_AXIS;
    this.ratio = size(this.canvas, width, this.height);
    for (const [still, alpha] of [[this.faint, 0.3], [this.strong, 1]]) {
      still.width = this.canvas.width;
      still.height = this.canvas.height;
      const ctx = still.getContext("2d");
      ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      ctx.globalAlpha = alpha;
      for (const chart of this.charts) this.#curves(ctx, chart);
    }
  }

  // ----- what is drawn -----

  #lines(name) {
    return this.rates.map(({ columns }) => {
      const last = columns.length - 1;
      return columns.map((value, i) => [(this.clock.end * i) / last, value?.[name]]).filter(([, value]) => value !== undefined);
    });
  }

  #utilization() {
    const now = (i, time) => this.rates[i].at(time)?.utilization;
    return { name: "utilization", lines: this.#lines("utilization"), most: 1, now, text: percent };
  }

  #tokens() {
    const lines = this.#lines("rate");
    const most = Math.max(1e-9, ...lines.flat().map(([, value]) => value));
    const now = (i, time) => this.rates[i].at(time)?.rate;
    return { name: this.clock.unit === "steps" ? "tokens a step" : "tok/s", lines, most, now, text: threeDigits };
  }

  #ttft() {
    const few = this.firsts.every(({ came }) => came.length <= DOTS_TO);
    const lines = this.firsts.map((firsts) => (few ? [] : firsts.windows(this.clock.end, 60)));
    const dots = few ? this.firsts.map(({ came, took }) => [...came].map((time, i) => [time, took[i]])) : null;
    const most = Math.max(1e-9, ...this.firsts.map((firsts) => firsts.most));
    const now = (i, time) => this.firsts[i].medianBy(time);
    const unit = this.clock.unit === "steps" ? "steps" : "s";
    return { name: "TTFT, median so far", lines, dots, most, now, text: (value) => `${threeDigits(value)} ${value === 1 ? unit.replace(/^steps$/, "step") : unit}` };
  }

  #place(chart, [time, value]) {
    const { end } = this.clock;
    return [chart.left + (chart.wide * time) / (end || 1), this.top + CHART_TALL * (1 - Math.min(1, value / chart.most))];
  }

  #curves(ctx, chart) {
    const { colors } = this;
    ctx.strokeStyle = ctx.fillStyle = colors.ink;
    chart.lines.forEach((points, i) => {
      ctx.lineWidth = 1.4;
      ctx.setLineDash(DASHES[i % DASHES.length]);
      ctx.beginPath();
      points.forEach((point, place) => (place ? ctx.lineTo(...this.#place(chart, point)) : ctx.moveTo(...this.#place(chart, point))));
      ctx.stroke();
    });
    ctx.setLineDash([]);
    chart.dots?.forEach((points, i) => {
      for (const point of points) this.#dot(ctx, i, ...this.#place(chart, point));
    });
  }

  /** A ride's dot: filled for the first, hollow for the second, a cross and a bar for two more. */
  #dot(ctx, ride, x, y) {
    ctx.lineWidth = 1.2;
    ctx.beginPath();
    if (ride % 4 < 2) ctx.arc(x, y, ride % 4 ? 2.2 : 1.9, 0, 2 * Math.PI);
    else { ctx.moveTo(x - 2, y); ctx.lineTo(x + 2, y); }
    if (ride % 4 === 2) { ctx.moveTo(x, y - 2); ctx.lineTo(x, y + 2); }
    if (ride % 4) ctx.stroke(); else ctx.fill();
  }

  // ----- a frame -----

  draw(position) {
    const { ctx, colors, clock } = this;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ctx.drawImage(this.faint, 0, 0);
    const time = clock.at(position);
    const share = clock.end ? time / clock.end : 0;
    for (const chart of this.charts) {
      const left = Math.floor((chart.left - 3) * this.ratio);
      const wide = Math.ceil((chart.wide * share + 3) * this.ratio);
      ctx.drawImage(this.strong, Math.max(0, left), 0, wide, this.canvas.height, Math.max(0, left), 0, wide, this.canvas.height);
    }
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    for (const chart of this.charts) {
      ctx.fillStyle = colors["ink-soft"];
      ctx.fillRect(chart.left, this.top + CHART_TALL, chart.wide, 1);
      ctx.fillStyle = colors.ink;
      ctx.fillRect(chart.left + chart.wide * share - 0.5, this.top, 1, CHART_TALL + 3);
      this.#sign(chart, time);
    }
  }

  /** The chart's name, the top of its scale, and each ride's value now behind a piece of its line. */
  #sign(chart, time) {
    const { ctx, colors } = this;
    ctx.font = font(10.5);
    ctx.textAlign = "left";
    ctx.fillStyle = colors["ink-soft"];
    ctx.fillText(clip(ctx, chart.name, chart.wide), chart.left, 11);
    ctx.textAlign = "right";
    ctx.font = font(9);
    if (ctx.measureText(chart.name).width * 1.2 + 50 < chart.wide) ctx.fillText(`to ${chart.text(chart.most)}`, chart.left + chart.wide, 11);
    ctx.textAlign = "left";
    this.rides.forEach((ride, i) => {
      const y = 25 + 14 * i;
      const value = chart.now(i, time);
      const words = Number.isFinite(value) ? chart.text(value) : "–";
      ctx.strokeStyle = ctx.fillStyle = colors.ink;
      let x = chart.left;
      if (this.rides.length > 1) {
        ctx.lineWidth = 1.4;
        ctx.setLineDash(DASHES[i % DASHES.length]);
        ctx.beginPath();
        ctx.moveTo(x, y - 4);
        ctx.lineTo(x + 16, y - 4);
        ctx.stroke();
        ctx.setLineDash([]);
        x += 21;
      }
      ctx.font = font(11.5, 600);
      ctx.fillText(words, x, y);
      x += ctx.measureText(words).width + 6;
      if (this.rides.length === 1) return;
      ctx.font = font(10);
      ctx.fillStyle = colors["ink-soft"];
      const room = chart.left + chart.wide - x;
      if (room > 24) ctx.fillText(clip(ctx, ride.name, room), x, y);
    });
  }
}

/** 0.123, 12.3, 1,234. */
function threeDigits(value) {
  return value >= 100 ? whole(value) : NUMBERS.format(Number(value.toPrecision(3)));
}
