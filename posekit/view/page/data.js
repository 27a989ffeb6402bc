"use strict";
// The results in this page: facts as JSON, arrays as base64 that is decoded when first needed.

const meta = JSON.parse(document.getElementById("meta").textContent);
const $ = (id) => document.getElementById(id);
const MISSING = -32768; // of a coordinate that is not finite

function decode(id) {
  const element = $(id);
  if (!element) return null;
  const text = element.textContent;
  const colon = text.indexOf(":");
  const binary = atob(text.slice(colon + 1));
  element.remove();
  const bytes = new Uint8Array(binary.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = binary.charCodeAt(n);
  switch (text.slice(0, colon)) {
    case "f8": return new Float64Array(bytes.buffer);
    case "i4": return new Int32Array(bytes.buffer);
    case "i2": return new Int16Array(bytes.buffer);
    default: return bytes;
  }
}

// The poses of one result. A row is a person in a frame; a track is a position in `ids`.
class Side {
  constructor(facts, number) {
    Object.assign(this, facts);
    this.number = number;
    this.cache = {};
    this.names = this.skeleton.keypoints;
    this.K = this.names.length;
    this.has = (name) => Boolean($(`side${number}-${name}`)) || name in this.cache;
    this.calibrated = this.has("confidence");
    this.count = this.array("times").length;
    this.rows = this.array("tracks").length;
    this.frameOfRow = new Int32Array(this.rows);
    const starts = this.array("starts");
    for (let f = 0; f < this.count; f++) this.frameOfRow.fill(f, starts[f], starts[f + 1]);
  }

  array(name) {
    if (!(name in this.cache)) this.cache[name] = decode(`side${this.number}-${name}`);
    return this.cache[name];
  }

  get times() { return this.array("times"); }

  // Without tracks persons are numbered by their place in each frame, from 1.
  label(track) { return `${this.tracked ? this.ids[track] : this.ids[track] + 1}`; }

  sizeOf(frame) {
    const sizes = this.has("sizes") && this.array("sizes");
    return sizes ? [sizes[2 * frame], sizes[2 * frame + 1]] : this.size;
  }

  // The last frame at or before a time, and the first one before all of them.
  frameAt(time_s) {
    const times = this.times;
    let low = 0, high = this.count - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (times[middle] <= time_s) low = middle; else high = middle - 1;
    }
    return low;
  }

  // The frame that stands for a time on show; -1 where the results have none near it: outside of
  // them, or where frames were left out. A frame that is shown for long keeps its time.
  frameNear(time_s) {
    const at = this.frameAt(time_s), late = time_s - this.times[at];
    return late < -0.5 * this.usual_s || late > 1.5 * this.usual_s ? -1 : at;
  }

  // The usual time between two frames, seconds.
  get usual_s() {
    if (!this.usual) {
      const steps = Array.from(this.times.subarray(1), (time, n) => time - this.times[n]).sort((a, b) => a - b);
      this.usual = steps[steps.length >> 1] || 1 / (this.fps || 25);
    }
    return this.usual;
  }

  // How long a frame is shown, seconds.
  duration(frame) {
    const times = this.times;
    const next = frame + 1 < this.count ? times[frame + 1] - times[frame] : 0;
    return next || (frame ? times[frame] - times[frame - 1] : 0) || 1 / (this.fps || 25);
  }

  // Rows of a track in order of time.
  rowsOf(track) {
    if (!this.byTrack) {
      const tracks = this.array("tracks");
      const counts = new Int32Array(this.ids.length);
      for (const each of tracks) counts[each]++;
      this.byTrack = Array.from(counts, (count) => new Int32Array(count));
      counts.fill(0);
      for (let row = 0; row < this.rows; row++) this.byTrack[tracks[row]][counts[tracks[row]]++] = row;
    }
    return this.byTrack[track];
  }

  points(raw) { return this.array(raw && this.has("raw") ? "raw" : "points"); }

  score(row, k) { return this.array("scores")[row * this.K + k] / 255; }

  // Calibrated confidence where there is one, else the score.
  confidence(row, k) {
    return this.array(this.calibrated ? "confidence" : "scores")[row * this.K + k] / 255;
  }

  // [x, y] in px, or null where there is none.
  point(row, k, raw) {
    const all = this.points(raw), at = 2 * (row * this.K + k);
    return all[at] === MISSING || all[at + 1] === MISSING
      ? null : [all[at] * this.step_px, all[at + 1] * this.step_px];
  }

  meanConfidence(row) {
    const all = this.array(this.calibrated ? "confidence" : "scores");
    let sum = 0;
    for (let at = row * this.K; at < (row + 1) * this.K; at++) sum += all[at];
    return sum / this.K / 255;
  }

  // Degrees at keypoint b between a and c, or null.
  angle(row, [a, b, c], raw, least) {
    if (Math.min(this.score(row, a), this.score(row, b), this.score(row, c)) < least) return null;
    const [p, q, r] = [a, b, c].map((k) => this.point(row, k, raw));
    if (!p || !q || !r) return null;
    const [x0, y0, x1, y1] = [p[0] - q[0], p[1] - q[1], r[0] - q[0], r[1] - q[1]];
    const length = Math.hypot(x0, y0) * Math.hypot(x1, y1);
    return length ? Math.acos(Math.max(-1, Math.min(1, (x0 * x1 + y0 * y1) / length))) * 180 / Math.PI : null;
  }

  // [first frame, last frame] of each unbroken stretch of a track.
  stretches(track) {
    const found = [];
    for (const row of this.rowsOf(track)) {
      const frame = this.frameOfRow[row], last = found[found.length - 1];
      if (last && frame === last[1] + 1) last[1] = frame; else found.push([frame, frame]);
    }
    return found;
  }
}

// Colors of persons: dark enough for white ground, bright enough for video with a rim.
const PALETTE = ["#1f77d0", "#d9620d", "#2a9142", "#9250d8", "#d0347f", "#0b8a9c", "#96690a", "#d8343a"];
function colorOf(side, track) {
  side.colors ||= [];
  return (side.colors[track] ||= newColor(side, track));
}

// The same for a person in both results.
function newColor(side, track) {
  const pair = side.number ? meta.pairs.find((each) => each[0] === side.ids[track]) : null;
  const n = pair ? sides[0].ids.indexOf(pair[1]) : track + (side.number ? sides[0].ids.length : 0);
  if (n < PALETTE.length) return PALETTE[n];
  const hue = (n * 137.508 + 20) % 360;
  return `hsl(${hue.toFixed(0)} ${n % 2 ? 70 : 60}% ${n % 3 ? 42 : 50}%)`;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "color") made.style.background = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const seconds = (value) => {
  const minutes = Math.floor(value / 60), rest = value - 60 * minutes;
  return minutes ? `${minutes}:${rest.toFixed(2).padStart(5, "0")}` : `${rest.toFixed(2)} s`;
};
