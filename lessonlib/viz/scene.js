// The picture: riders, the memory floor, the building around them.

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

/** Beside a rider's head: it has heard what was not meant for it. */
function drawEar(ctx, colors, x, y, height) {
  ctx.strokeStyle = colors.preempted;
  ctx.lineWidth = Math.max(1.2, height * 0.06);
  for (const radius of [0.16, 0.28]) {
    ctx.beginPath();
    ctx.arc(x + height * 0.1, y + height * 0.1, height * radius, -1.1, 1.1);
    ctx.stroke();
  }
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
    { kind: memory.poisoned ? "poisoned" : "free", count: memory.free - lost },
  ].filter(({ count }) => count > 0);
}

/** The most remarkable thing about the blocks in a step, or nothing. */
function floorNote(memory, lost) {
  if (memory.twice) return `${whole(memory.twice)} in two tables`;
  if (lost) return `${whole(lost)} just lost`;
  return memory.saved ? `sharing saves ${whole(memory.saved)}` : "";
}

/**
 * One block: a square, filled where held; round where shared; a wedge in it where it was just lost; crossed thinly where
 * it is free and poisoned, boldly where it stands in the tables of two.
 */
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
  } else if (kind === "overheard") {
    ctx.fillStyle = color;
    ctx.fillRect(x, y, side, side);
    drawCross(ctx, colors.preempted, x, y, side, Math.max(1.5, side * 0.17));
  } else {
    ctx.strokeStyle = kind === "lost" ? colors.preempted : colors.free;
    ctx.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
  }
  if (kind === "poisoned") drawCross(ctx, colors.free, x, y, side, 1);
  if (kind === "lost") {
    ctx.fillStyle = colors.preempted;
    ctx.beginPath();
    ctx.moveTo(x + side / 2, y + side * 0.25);
    ctx.lineTo(x + side * 0.75, y + side * 0.72);
    ctx.lineTo(x + side * 0.25, y + side * 0.72);
    ctx.fill();
  }
}

function drawCross(ctx, color, x, y, side, thick) {
  ctx.strokeStyle = color;
  ctx.lineWidth = thick;
  ctx.beginPath();
  ctx.moveTo(x + side * 0.2, y + side * 0.2);
  ctx.lineTo(x + side * 0.8, y + side * 0.8);
  ctx.moveTo(x + side * 0.8, y + side * 0.2);
  ctx.lineTo(x + side * 0.2, y + side * 0.8);
  ctx.stroke();
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
      ctx.globalAlpha = slot < 0 || chosen || read || run.owner?.twice ? 1 : 0.4;
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
    const note = floorNote(memory, lost);
    ctx.font = font(10.5);
    if (!note || ctx.measureText(note).width > left) return;
    ctx.textAlign = "right";
    ctx.fillStyle = lost || memory.twice ? colors.preempted : colors["ink-soft"];
    ctx.fillText(note, this.x + this.width - 10, this.top + 13);
  }

  #cells(ctx, colors, run, place, color, chosen) {
    const { cell, columns } = this;
    const gap = cell > 7 ? 2 : 1;
    for (let i = place; i < place + run.count; i++) {
      const x = this.left + (i % columns) * cell;
      const y = this.cellsTop + Math.floor(i / columns) * cell;
      const kind = i - place < (run.owner?.twice || 0) ? "overheard" : run.kind;
      drawBlock(ctx, colors, kind, x + gap / 2, y + gap / 2, cell - gap, color);
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
    this.pointed = null; // {index, request} of the rider pointed at
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

  /** {step, part of it that is over, y of the car} of one ride at a position of the clock. */
  #where(index, position, motion) {
    const ride = this.rides[index];
    const shaft = this.shafts[index];
    const times = this.clock.rideTimes[index];
    const tick = Math.min(Math.floor(position), this.clock.last);
    const step = this.clock.stepOf[index][tick];
    const now = motion ? this.clock.at(position) : this.clock.times[tick];
    const length = times[step + 1] - times[step];
    const part = motion && length > 0 ? Math.min(1, Math.max(0, (now - times[step]) / length)) : 1;
    const done = ride.duration > 0 ? Math.min(1, now / times[ride.numSteps]) : 0;
    return { step, part, y: shaft.low - shaft.carHeight - shaft.travel * done };
  }

  #ride(ride, index, position, motion) {
    const shaft = this.shafts[index];
    const { step, part, y } = this.#where(index, position, motion);
    const slot = this.#slotOf(this.pointed, index, step);
    this.#lights(ride, shaft, step);
    this.#lobby(ride, shaft, step);
    this.floors[index]?.draw(this.ctx, this.colors, step, slot);
    this.#car(ride, shaft, y, step, part, this.#openDoor(ride, index, step, motion));
    if (shaft.level === "gauge") return;
    this.#overhearing(ride, shaft, y + CAR_HEAD, step);
    if (slot >= 0) this.#frame(this.#cell(shaft, y + CAR_HEAD, slot), this.colors.ink);
    if (motion && shaft.level === "figures") this.#walkers(ride, shaft, y + CAR_HEAD, step, part);
  }

  /** The slot of a rider, {index, request}, in the shaft `index`, or -1. */
  #slotOf(rider, index, step) {
    const stay = rider?.index === index ? this.rides[index].stayOf(rider.request, step) : -1;
    return stay < 0 ? -1 : this.rides[index].stays.slot[stay];
  }

  #cell(shaft, top, slot) {
    return {
      x: shaft.carX + 4 + (slot % shaft.columns) * shaft.cellWidth,
      y: top + Math.floor(slot / shaft.columns) * shaft.cellHeight,
      wide: shaft.cellWidth,
      tall: shaft.cellHeight,
    };
  }

  /** Where a rider, {index, request}, stands: its slot, or the lobby where it is not on board; for nobody the first car. */
  spotOf(rider, position, motion) {
    const index = rider?.index ?? 0;
    const shaft = this.shafts[index];
    if (!shaft) return { x: 0, y: 0, wide: 0, tall: 0 };
    const { step, y } = this.#where(index, position, motion);
    if (!rider || shaft.level === "gauge") return { x: shaft.carX, y, wide: shaft.carWidth, tall: shaft.carHeight };
    const slot = this.#slotOf(rider, index, step);
    if (slot >= 0) return this.#cell(shaft, y + CAR_HEAD, slot);
    return { x: shaft.x + 5, y: shaft.ground - LOBBY + 7, wide: shaft.building - 10, tall: LOBBY - 8 };
  }

  #frame({ x, y, wide, tall }, color) {
    this.ctx.strokeStyle = color;
    this.ctx.lineWidth = 1.6;
    this.ctx.strokeRect(x, y, wide, tall);
  }

  /** From each slot whose words are read by another a line to that one, which it frames. */
  #overhearing(ride, shaft, top, step) {
    const { ctx, colors } = this;
    for (const { request, other } of ride.heardIn(step)) {
      const [to, from] = [request, other].map((who) => ride.stayOf(who, step));
      if (to < 0) continue;
      const cell = this.#cell(shaft, top, ride.stays.slot[to]);
      this.#frame(cell, colors.preempted);
      if (shaft.level === "figures") drawEar(ctx, colors, cell.x + cell.wide / 2, cell.y + cell.tall - 44, 31);
      if (from < 0) continue; // the other has left, its words are still there
      const source = this.#cell(shaft, top, ride.stays.slot[from]);
      const [x1, x2] = [source.x + source.wide / 2, cell.x + cell.wide / 2];
      ctx.setLineDash([3, 2]);
      ctx.beginPath();
      ctx.moveTo(x1, source.y + 4);
      ctx.quadraticCurveTo((x1 + x2) / 2, Math.min(source.y, cell.y) - 12, x2, cell.y + 4);
      ctx.stroke();
      ctx.setLineDash([]);
    }
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
    ctx.textAlign = "left";
    ctx.font = font(8.5, 600);
    ctx.fillStyle = colors.ink;
    ctx.fillText(clip(ctx, heldWords(ride, step), room), x + 11, ground - 39.5);
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

  /** A bar filled by progress: lines across it while it reads, a notch when it gets home, hollow when it stalls. */
  #slotBar(shaft, x, y, rider) {
    const { ctx, colors } = this;
    const width = Math.max(1.5, shaft.cellWidth - 1);
    const height = shaft.cellHeight - 3;
    const top = y + 1.5;
    ctx.fillStyle = rider ? colors.lobby : this.idle;
    ctx.fillRect(x, top, width, height);
    if (!rider) return;
    const filled = rider.phase === "finished" ? height : Math.max(2, height * rider.progress);
    ctx.fillStyle = colors[rider.phase] || colors["ink-soft"];
    ctx.fillRect(x, top + height - filled, width, filled);
    if (rider.phase === "prefill") {
      for (let line = 0; line < 4; line++) ctx.fillRect(x, top + (height * line) / 4, width, 1.5);
    } else if (rider.phase === "finished") {
      ctx.fillStyle = colors.lobby;
      ctx.beginPath();
      ctx.moveTo(x, top);
      ctx.lineTo(x + width, top);
      ctx.lineTo(x + width / 2, top + Math.min(height / 2, width));
      ctx.fill();
    }
  }

  /**
   * Density: a square a slot, stronger the further its rider has come; striped while it reads, round when it gets home,
   * hollow when it stalls.
   */
  #slotCell(shaft, x, y, rider) {
    const { ctx, colors } = this;
    const gap = shaft.cellWidth > 5 ? 1 : 0.4;
    const side = shaft.cellWidth - gap;
    const phase = rider?.phase;
    ctx.fillStyle = rider ? colors[phase] || colors["ink-soft"] : colors.slot;
    if (phase === "finished" && side > 4) {
      ctx.beginPath();
      ctx.arc(x + side / 2, y + side / 2, side / 2, 0, 2 * Math.PI);
      ctx.fill();
      return;
    }
    ctx.globalAlpha = phase === "decode" ? 0.35 + 0.65 * rider.progress : 1;
    ctx.fillRect(x, y, side, side);
    ctx.globalAlpha = 1;
    if (side <= 4 || (phase !== "prefill" && phase !== "stalled")) return;
    ctx.fillStyle = colors.surface;
    if (phase === "prefill") ctx.fillRect(x, y + side * 0.4, side, side * 0.2);
    else ctx.fillRect(x + 1, y + 1, side - 2, side - 2);
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
    for (const [index, shaft] of this.shafts.entries()) {
      const ride = this.rides[index];
      const { step, y } = this.#where(index, position, false);
      const column = Math.floor((px - shaft.carX - 4) / shaft.cellWidth);
      const row = Math.floor((py - y - CAR_HEAD) / shaft.cellHeight);
      if (column < 0 || column >= shaft.columns || row < 0 || row >= shaft.rows || shaft.level === "gauge") continue;
      const slot = row * shaft.columns + column;
      const stay = slot < ride.slots ? ride.stayAt(slot, step) : -1;
      if (stay >= 0) return { ride, index, slot, stay, step };
    }
    return null;
  }
}
