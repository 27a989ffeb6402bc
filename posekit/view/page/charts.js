// The timeline of the persons and the curves, as canvases that share one scale of time.

const INK = "#1f2328", FAINT = "#d8dee4", QUIET = "#59636e", ALARM = "#cf222e";
const MOST_ROWS = 300, MOST_CURVES = 8;

// A round step of which about `count` fit into `span`.
function roundStep(span, count, steps = [1, 2, 5]) {
  const power = 10 ** Math.floor(Math.log10(span / count || 1));
  return [...steps.map((each) => each * power), 10 * power, 20 * power].find((each) => span / each <= count) || 10 * power;
}
function timeStep(span, count) {
  return [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600].find((each) => span / each <= count)
    || roundStep(span, count);
}
const tickText = (value, step) => (step >= 1 && value >= 60
  ? `${Math.floor(value / 60)}:${String(Math.round(value % 60)).padStart(2, "0")}` : `${+value.toFixed(2)}`);

// A canvas of a height in CSS px, as wide as its box; its context is in CSS px.
function prepared(canvas, height, width = canvas.parentElement.clientWidth) {
  const dense = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.style.width = `${width}px`;
  const wanted = [Math.round(width * dense), Math.round(height * dense)];
  if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) [canvas.width, canvas.height] = wanted;
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, sans-serif";
  return [context, width];
}

class Timeline {
  constructor(canvas, sides, seek) {
    this.canvas = canvas;
    this.sides = sides;
    this.row = 22;
    this.left = 92;
    const times = sides[0].times;
    this.low = Math.min(...sides.map((each) => each.times[0]));
    this.high = Math.max(...sides.map((each) => each.times[each.count - 1] + each.duration(each.count - 1)), times[0] + 0.001);
    this.lines = sides.flatMap((side) => (side.tracked ? side.ids.map((_, track) => [side, track]) : []));
    this.leftOut = Math.max(0, this.lines.length - MOST_ROWS);
    this.lines = this.lines.slice(0, MOST_ROWS);
    this.heights = this.lines.map(([side, track], n) => 26 + n * this.row + (side.number ? 20 : 0) + (sides.length > 1 ? 18 : 0));
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      seek(this.low + (event.clientX - box.left - this.left) / (box.width - this.left - 8) * (this.high - this.low));
    });
  }

  x(time_s) { return this.left + (time_s - this.low) / (this.high - this.low) * (this.width - this.left - 8); }

  // The part that does not move is drawn once per size and kept.
  paint(time_s, view) {
    if (!this.canvas.parentElement.clientWidth) return; // its part is hidden
    const height = (this.heights[this.heights.length - 1] || (this.counts ? 70 : 26)) + this.row + 8;
    const kind = `${this.canvas.parentElement.clientWidth} ${view.version} ${window.devicePixelRatio}`;
    const [context, width] = prepared(this.canvas, Math.max(60, height));
    this.width = width;
    if (this.kept !== kind) {
      this.still(context, Math.max(60, height), view);
      this.image = document.createElement("canvas");
      [this.image.width, this.image.height] = [this.canvas.width, this.canvas.height];
      this.image.getContext("2d").drawImage(this.canvas, 0, 0);
      this.kept = kind;
    } else {
      context.save();
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.drawImage(this.image, 0, 0);
      context.restore();
    }
    const x = this.x(time_s);
    context.strokeStyle = INK;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(x, 18);
    context.lineTo(x, height);
    context.stroke();
  }

  still(context, height, view) {
    const fitting = timeStep(this.high - this.low, (this.width - this.left) / 80);
    const step = sides[0].files.length ? Math.max(1, fitting) : fitting; // images are a second apart
    context.fillStyle = QUIET;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let at = Math.ceil(this.low / step) * step; at <= this.high; at += step) {
      context.fillStyle = FAINT;
      context.fillRect(this.x(at), 18, 1, height - 18);
      context.fillStyle = QUIET;
      context.fillText(tickText(at, step) + (at === 0 && !sides[0].files.length ? " s" : ""), Math.min(this.x(at), this.width - 14), 9);
    }
    context.textAlign = "left";
    if (!this.lines.length) this.totals(context, height);
    let before = null;
    this.lines.forEach(([side, track], n) => {
      const y = this.heights[n];
      if (this.sides.length > 1 && side !== before) {
        context.fillStyle = INK;
        context.font = "600 12px system-ui, sans-serif";
        context.fillText(side.number ? "After" : "Before", 0, y - 18);
        context.font = "12px system-ui, sans-serif";
      }
      before = side;
      this.line(context, side, track, y, view);
    });
    this.changes(context);
  }

  line(context, side, track, y, view) {
    const color = colorOf(side, track), stretches = side.stretches(track);
    context.globalAlpha = view.hidden[side.number].has(track) ? 0.25 : 1;
    context.fillStyle = INK;
    context.fillText(`Person ${side.label(track)}`, 0, y);
    context.strokeStyle = color;
    context.lineWidth = 1;
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(this.x(side.times[stretches[0][0]]), y);
    context.lineTo(this.x(side.times[stretches[stretches.length - 1][1]]), y);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = color;
    for (const [first, last] of stretches) {
      const x = this.x(side.times[first]);
      context.fillRect(x, y - 5.5, Math.max(1, this.x(side.times[last] + side.duration(last)) - x - 0.5), 11);
    }
    context.globalAlpha = 1;
  }

  changes(context) {
    const row = new Map(this.lines.map(([side, track], n) => [`${side.number} ${side.ids[track]}`, this.heights[n]]));
    context.strokeStyle = context.fillStyle = ALARM;
    context.lineWidth = 1.5;
    for (const side of this.sides) {
      for (const { at, before, after } of side.changes) {
        const [from, to] = [row.get(`${side.number} ${before}`), row.get(`${side.number} ${after}`)];
        if (from === undefined || to === undefined) continue;
        const x = this.x(side.times[at]);
        context.beginPath();
        context.moveTo(x, from);
        context.lineTo(x, to);
        context.stroke();
        context.fillRect(x - 3, to - 8, 6, 3);
      }
    }
  }

  // Without tracks: how many persons each frame has.
  totals(context, height) {
    const side = this.sides[0], starts = side.array("starts");
    let most = 1;
    for (let f = 0; f < side.count; f++) most = Math.max(most, starts[f + 1] - starts[f]);
    context.fillStyle = INK;
    context.fillText("Persons", 0, 30);
    context.fillText(`up to ${most}`, 0, 46);
    context.fillStyle = PALETTE[0];
    for (let f = 0; f < side.count; f++) {
      const tall = (starts[f + 1] - starts[f]) / most * (height - 30), x = this.x(side.times[f]);
      context.fillRect(x, height - 4 - tall, Math.max(1, this.x(side.times[f] + side.duration(f)) - x - 0.5), tall);
    }
  }
}

// One chart: a curve a person. `value(side, row)` is a number or null.
class Chart {
  constructor(title, unit, top, step, value, seek) {
    Object.assign(this, { title, unit, top, step, value, left: 38 });
    this.caption = element("figcaption");
    this.canvas = element("canvas", { role: "img", "aria-label": `${title} over time, a curve a person` });
    this.figure = element("figure", {}, this.caption, element("div", {}, this.canvas));
    this.cache = new Map();
    this.canvas.addEventListener("click", (event) => {
      const box = this.canvas.getBoundingClientRect();
      seek(this.low + (event.clientX - box.left - this.left) / (box.width - this.left - 8) * (this.high - this.low));
    });
  }

  values(side, track, key) {
    const name = `${side.number} ${track} ${key}`;
    if (!this.cache.has(name)) {
      const rows = side.rowsOf(track), values = new Float32Array(rows.length);
      for (let n = 0; n < rows.length; n++) values[n] = this.value(side, rows[n]) ?? NaN;
      this.cache.set(name, values);
    }
    return this.cache.get(name);
  }

  x(time_s) { return this.left + (time_s - this.low) / (this.high - this.low) * (this.width - this.left - 8); }

  y(value) { return 8 + (1 - value / this.top) * 122; }

  paint(time_s, range, curves, key) {
    if (!this.canvas.parentElement.clientWidth) return; // its part is hidden
    [this.low, this.high] = range;
    const [context, width] = prepared(this.canvas, 152);
    this.width = width;
    const names = curves.map(([side, track]) => `${side.number} ${track}`);
    const kind = [range, key, names, this.canvas.width].join(" ");
    if (this.kept !== kind) this.still(context, curves, key);
    else {
      context.save();
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.drawImage(this.image, 0, 0);
      context.restore();
    }
    this.kept = kind;
    this.caption.replaceChildren(element("b", {}, this.title));
    for (const [side, track] of curves) this.reading(side, track, key, time_s, curves.length > 1);
    context.fillStyle = INK;
    context.fillRect(this.x(time_s) - 0.75, 8, 1.5, 122);
  }

  // What does not move while the range stands still, kept as an image.
  still(context, curves, key) {
    this.axes(context);
    context.save();
    context.beginPath();
    context.rect(this.left, 0, this.width - this.left - 8, 152);
    context.clip();
    for (const [side, track] of curves) this.curve(context, side, track, key);
    context.restore();
    this.image ||= document.createElement("canvas");
    [this.image.width, this.image.height] = [this.canvas.width, this.canvas.height];
    this.image.getContext("2d").drawImage(this.canvas, 0, 0);
  }

  axes(context) {
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (let level = 0; level <= this.top + 1e-9; level += this.step) {
      context.fillStyle = FAINT;
      context.fillRect(this.left, this.y(level), this.width - this.left - 8, 1);
      context.fillStyle = QUIET;
      context.fillText(`${+level.toFixed(2)}${this.unit}`, this.left - 5, this.y(level));
    }
    const step = timeStep(this.high - this.low, this.width / 90);
    context.textAlign = "center";
    for (let at = Math.ceil(this.low / step - 1e-9) * step; at <= this.high; at += step) {
      const x = this.x(at);
      if (x > this.width - 40) continue;
      context.fillText(tickText(at, step), Math.max(x, this.left + 4), 143);
    }
    context.textAlign = "right";
    context.fillText(this.high >= 60 ? "min:s" : "s", this.width - 8, 143);
  }

  curve(context, side, track, key) {
    const values = this.values(side, track, key), rows = side.rowsOf(track), frames = side.frameOfRow;
    let n = firstAtOrAfter(rows, frames, side.times, this.low) - 1;
    const end = Math.min(rows.length, firstAtOrAfter(rows, frames, side.times, this.high) + 1);
    const color = colorOf(side, track);
    context.strokeStyle = color;
    context.lineWidth = 1.75;
    context.setLineDash(meta.sides.length > 1 && !side.number ? [5, 3] : []);
    context.beginPath();
    // More values than pixels: lowest and highest of each few, so that no spike is lost.
    const stride = Math.max(1, Math.floor((end - n) / (2 * this.width)));
    let before = null;
    for (n = Math.max(0, n); n < end; n += stride) {
      const frame = frames[rows[n]];
      const few = values.subarray(n, Math.min(end, n + stride)).filter((value) => !Number.isNaN(value));
      if (!few.length) { before = null; continue; }
      const x = this.x(side.times[frame]);
      const ends = stride > 1 ? [few.reduce((a, b) => Math.min(a, b)), few.reduce((a, b) => Math.max(a, b))] : [few[0]];
      if (before !== null && frame - before <= stride) context.lineTo(x, this.y(ends[0]));
      else { context.moveTo(x, this.y(ends[0])); context.lineTo(x + 0.8, this.y(ends[0])); }
      if (ends.length > 1) context.lineTo(x, this.y(ends[1]));
      before = frame;
    }
    context.stroke();
    context.setLineDash([]);
  }

  // The value at the frame on show, beside the title.
  reading(side, track, key, time_s, named) {
    const values = this.values(side, track, key), rows = side.rowsOf(track);
    const frame = side.frameAt(time_s + 1e-4), n = firstAtOrAfter(rows, side.frameOfRow, side.times, side.times[frame]);
    const there = n < rows.length && side.frameOfRow[rows[n]] === frame && !Number.isNaN(values[n]);
    const text = there ? `${values[n].toFixed(this.top > 10 ? 0 : 2)}${this.unit}` : "–";
    const chip = element("i", { class: "chip", color: colorOf(side, track) });
    const which = sides.length > 1 ? `${side.number ? "after" : "before"} ${side.label(track)}` : side.label(track);
    this.caption.append(element("span", {}, chip, named ? `${which}: ${text}` : text));
  }
}

// Position of the first of `rows` whose frame is not before a time.
function firstAtOrAfter(rows, frames, times, time_s) {
  let low = 0, high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[frames[rows[middle]]] < time_s) low = middle + 1; else high = middle;
  }
  return low;
}
