// What the picture says in words, and its legend.

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
  for (const { request, other } of ride.heardIn(step).slice(0, 3)) parts.push(`${ride.nameOf(request)} overhears ${ride.nameOf(other)}`);
  if (heldWords(ride, step)) parts.push(`the first in line waits: ${heldWords(ride, step)}`);
  return parts.join("; ");
}

/** Why the first in line did not board, in the order of `HeldBy` in trace_schema.py. */
const HELD_WORDS = [
  "", "", "no spot is free", "the doors stay shut until all are home", "the car waits for more riders",
  "the rule holds the car back", "this step's tokens are spent", "blocks short", "memory ran short",
];
const BLOCKS = HELD_WORDS.indexOf("blocks short");

/** What stands at the door in a step: why the first in line waits, or nothing. */
function heldWords(ride, step) {
  const { heldBy, blocksShort } = ride.reasonAt(step);
  return heldBy === BLOCKS ? `${countOf(blocksShort, "block")} short` : HELD_WORDS[heldBy] ?? "";
}

const STATE_WORDS = { prefill: "reads its prompt", decode: "decodes", finished: "gets home", stalled: "on board, not its turn" };

/** A moment on the clock, in words; a step by its number. */
function momentWords(clock, time) {
  return clock.unit === "steps" ? `step ${tickText(time, Number.isInteger(time) ? 1 : 0.1)}` : `${time.toFixed(2)} s`;
}

function spanWords(clock, time) {
  return clock.unit === "steps" ? `${tickText(time, Number.isInteger(time) ? 1 : 0.1)} step${time === 1 ? "" : "s"}` : `${time.toFixed(2)} s`;
}

/** About a rider at a moment: where it is, its prompt, its words so far, its times. */
function riderWords(ride, request, clock, index, tick) {
  const step = clock.stepOf[index][tick];
  const stay = ride.stayOf(request, step);
  const lines = [`${ride.nameOf(request)}: ${stay < 0 ? awayWords(ride, request, step) : seatWords(ride, stay, step)}`];
  if (stay >= 0 && ride.capacity) {
    lines.push(`${countOf(ride.blocksOf(stay, step), "block")} in the table of slot ${ride.stays.slot[stay]}`);
  }
  if (stay >= 0 && ride.hasOverheard(stay, step)) lines.push("has read words that are not its own");
  if (ride.prompts[request]) lines.push(`“${ride.prompts[request]}”`);
  const said = wordsSoFar(ride, request, step);
  if (said) lines.push(`→ ${said}`);
  lines.push(timesWords(ride, request, clock, index, step));
  return lines.filter(Boolean).join("\n");
}

function seatWords(ride, stay, step) {
  const { done, goal, phase } = ride.rider(stay, step);
  return `${whole(done)} of ${countOf(goal, "token")}, ${STATE_WORDS[phase]} in slot ${ride.stays.slot[stay]}`;
}

function awayWords(ride, request, step) {
  const stays = ride.staysOf(request);
  const left = stays.filter((stay) => ride.stays.end[stay] <= step).at(-1);
  if (left === undefined) return "not on board yet";
  return { [KIND.FINISH]: "home", [KIND.PREEMPT]: "put off, waits to board again" }[ride.stays.how[left]] || "gone";
}

/** Of a rider's whole text about as much as it has tokens; text is cut between words. */
function wordsSoFar(ride, request, step) {
  const text = ride.texts[request];
  const goal = ride.requests.goal[request];
  if (!text || !goal) return "";
  const last = ride.staysOf(request).filter((stay) => ride.stays.first[stay] <= step).at(-1);
  if (last === undefined) return "";
  const { done } = ride.rider(last, Math.min(step, ride.stays.end[last] - 1));
  if (done >= goal) return text;
  const cut = text.slice(0, Math.floor((text.length * done) / goal));
  return cut && `${cut.slice(0, Math.max(0, cut.lastIndexOf(" ")))} …`;
}

/** When it came, when it boarded, when its first token came; only what has happened by `step`. */
function timesWords(ride, request, clock, index, step) {
  const times = clock.rideTimes[index];
  const arrival = ride.arrivalsOn(times, clock.unit)[request];
  const words = Number.isFinite(arrival) ? [`came ${momentWords(clock, arrival)}`] : [];
  const boardings = [...ride.staysOf(request)].map((stay) => ride.stays.first[stay]).filter((first) => first <= step);
  if (boardings.length) words.push(`boarded ${momentWords(clock, times[boardings[0]])}`);
  if (boardings.length > 1) words.push(`again ${momentWords(clock, times[boardings.at(-1)])}`);
  const first = ride.firstStep[request];
  if (first >= 0 && first <= step && Number.isFinite(arrival)) words.push(`first token after ${spanWords(clock, times[first + 1] - arrival)}`);
  return words.join(", ");
}

/** Under the pointer: blocks that no single rider has. */
function runWords({ kind, count }) {
  const words = {
    shared: "in more than one rider's table",
    other: "held, but by nobody on board",
    lost: "lost by those just put off, free again",
    free: "free",
    poisoned: "free and poisoned: whoever reads one gets no number",
  };
  return `${countOf(count, "block")} ${words[kind]}`;
}

/** "31 of 39 blocks held", and what sharing saves or those put off lost. */
function memoryWords(ride, step) {
  const memory = ride.memory(step);
  const words = [`${whole(memory.held)} of ${whole(ride.capacity)} blocks held`];
  if (memory.twice) words.push(`${whole(memory.twice)} in two tables`);
  else if (memory.saved) words.push(`sharing saves ${whole(memory.saved)}`);
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

// ---------- legend ----------

function legendFor(rides) {
  const entries = [["decode", "decode"], ["finished", "finished"], ["idle", "idle slot"]];
  if (rides.some((ride) => ride.spans.kind.includes(KIND.PREFILL))) entries.unshift(["prefill", "prefill"]);
  if (rides.some((ride) => ride.stalls)) entries.push(["stalled", "on board, not its turn"]);
  const puts = rides.some((ride) => ride.stays.how.includes(KIND.PREEMPT));
  if (puts) entries.push(["preempted", "preempted"]);
  if (rides.some((ride) => ride.overheard.rows)) entries.push(["overheard", "overhears another"]);
  if (!rides.some((ride) => ride.capacity)) return entries;
  entries.push(["block-own", "a rider's block"]);
  if (rides.some((ride) => ride.stayBlocks.cached.some(Boolean))) entries.push(["block-shared", "shared block"]);
  entries.push(rides.some((ride) => ride.poisoned) ? ["block-poisoned", "free block, poisoned"] : ["block-free", "free block"]);
  if (rides.some((ride) => ride.overheard.rows)) entries.push(["block-overheard", "in two tables"]);
  if (puts) entries.push(["block-lost", "just lost"]);
  return entries;
}

function legendHint(rides) {
  return rides.some((ride) => ride.capacity) ? "number: tokens wanted; in a block: slot" : "number: tokens wanted";
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
  } else if (phase === "overheard") {
    drawFigure(ctx, colors, 8, 18, 18, "decode", 0.6);
    drawEar(ctx, colors, 8, 2.5, 18);
  } else drawFigure(ctx, colors, 8, 18, 18, phase, 0.6);
}
