// What every widget here is made of: colors, canvases, numbers, elements, and the box they stand in (see widget.py).
// Files are joined into one module in the order that widget.py gives, so they import nothing.

// ---------- colors: read from the style sheet, so that themes stay there ----------

const COLORS = [
  "ink", "ink-soft", "surface", "prefill", "decode", "preempted", "finished", "shared", "free", "idle",
  "facade", "facade-edge", "window", "shaft", "car", "slot", "sky", "street", "lobby",
];

function readColors(root) {
  const style = getComputedStyle(root);
  return Object.fromEntries(COLORS.map((name) => [name, style.getPropertyValue(`--elevator-${name}`).trim()]));
}

// Where pages say which theme they show: JupyterLab and the course's site.
const THEME_MARKS = ["data-jp-theme-light", "data-jp-theme-name", "data-theme"];

function isDark() {
  const body = document.body;
  if (body.dataset.jpThemeLight !== undefined) return body.dataset.jpThemeLight === "false";
  if (["light", "dark"].includes(body.dataset.theme)) return body.dataset.theme === "dark";
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
const NUMBERS = new Intl.NumberFormat("en-US", { maximumFractionDigits: 20 }); // one for all: making it is slow
const whole = (number) => NUMBERS.format(Math.round(number));
const countOf = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;
const percent = (share) => `${(100 * share).toFixed(1)}%`;

// ---------- numbers and canvases ----------

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

/** First place in [low, high) of ascending `values` that holds more than `wanted`. */
function after(values, wanted, low = 0, high = values.length) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= wanted) low = middle + 1; else high = middle;
  }
  return low;
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

// ---------- elements ----------

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
