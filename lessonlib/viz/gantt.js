// Slots over time.

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
    this.pointed = null; // {index, request} of the rider pointed at
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
    this.#heard(ctx, ride, times, top, row);
  }

  /** A line in vermilion below each step in which a rider reads another's words. */
  #heard(ctx, ride, times, top, row) {
    const { step, request, rows } = ride.overheard;
    ctx.fillStyle = this.colors.preempted;
    for (let i = 0; i < rows; i++) {
      const stay = ride.stayOf(request[i], step[i]);
      if (stay < 0) continue;
      const left = this.x(times[step[i]]);
      ctx.fillRect(left, top + (ride.stays.slot[stay] + 1) * row - Math.min(3, row / 2), Math.max(1, this.x(times[step[i] + 1]) - left), Math.min(2, row / 2));
    }
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

  /** Every stay of the rider pointed at. */
  #outline() {
    const ride = this.rides[this.pointed?.index];
    if (!ride) return;
    const { top, row } = this.lanes[this.pointed.index];
    const times = this.clock.rideTimes[this.pointed.index];
    this.ctx.strokeStyle = this.colors.ink;
    this.ctx.lineWidth = 1.6;
    for (const stay of ride.staysOf(this.pointed.request)) {
      const left = this.x(times[ride.stays.first[stay]]);
      const wide = this.x(times[ride.stays.end[stay]]) - left;
      this.ctx.strokeRect(left, top + ride.stays.slot[stay] * row, Math.max(2, wide), Math.max(2, row));
    }
  }

  draw(position) {
    const { ctx, colors } = this;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ctx.drawImage(this.still, 0, 0);
    if (!this.rides.length || !this.clock.end) return;
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.#outline();
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
