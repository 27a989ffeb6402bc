// Puts the parts together: state, switches, keys.

const sides = meta.sides.map((facts, number) => new Side(facts, number));
const lead = sides[sides.length - 1]; // its frames are stepped through
const view = { hidden: sides.map(() => new Set()), layers: {}, least: 0.2, window_s: 0, version: 0 };
let frame = 0; // on show, of the lead
let shown_s = 0; // its time, or that of what is on show where the results have no frame
let wanted = null; // on its way there
let player = null;
let scheduled = false;

const stages = sides.map((side, n) => new Stage(side, sides.length > 1 ? ["Before", "After"][n] : ""));
const goTo = (time_s) => seek(lead.frameAt(time_s));
const timeline = lead.count ? new Timeline($("timeline"), sides, goTo) : null;
const table = new PersonTable($("table"), sides, (row, side) => goTo(side.times[side.frameOfRow[row]] + 1e-4));
const angles = jointAngles();
let charts = [];

function seek(n) {
  wanted = Math.max(0, Math.min(lead.count - 1, n));
  player.seek(wanted);
}

function onFrame(time_s) {
  const near = lead.frameNear(time_s), last = lead.count - 1;
  if (near === wanted || player?.playing) wanted = null;
  frame = lead.frameAt(time_s);
  shown_s = near < 0 ? time_s : lead.times[frame];
  if (player?.playing && near < 0 && frame === last) { // the video goes on after the results
    player.pause();
    seek(last);
  }
  refresh();
}

function refresh() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; paint(); });
}

function paint() {
  if (!player || !document.body.clientWidth) return; // not laid out yet
  const time_s = shown_s, near = lead.frameNear(time_s + 1e-4);
  for (const stage of stages) stage.paint(stage.side.frameNear(time_s + 1e-4), player, view);
  $("scrub").value = frame;
  $("scrub").setAttribute("aria-valuetext", `frame ${lead.array("frames")[frame]}, ${seconds(time_s)}`);
  $("clock").value = near < 0 ? `${seconds(time_s)}: no results here` : lead.files.length ? `image ${frame + 1} of ${lead.count} · ${lead.files[frame]}`
    : `frame ${lead.array("frames")[frame]} · ${seconds(time_s)} of ${seconds(lead.times[lead.count - 1])}`;
  $("play").textContent = player.playing ? "Pause" : "Play";
  timeline.paint(time_s, view);
  paintCharts(time_s);
  if (!performance.getEntriesByName("posekit-drawn").length) performance.mark("posekit-drawn");
}

function paintCharts(time_s) {
  if (!lead.tracked) return;
  let range = [timeline.low, timeline.high];
  if (view.window_s) range = [time_s - view.window_s / 2, time_s + view.window_s / 2];
  const shown = curves();
  const key = `${view.layers.raw} ${view.least}`;
  for (const chart of charts) chart.paint(time_s, range, shown, key);
}

// The persons whose curves are drawn: those switched on, at most a few.
function curves() {
  const shown = sides.flatMap((side) => (side.tracked
    ? side.ids.map((_, track) => [side, track]).filter(([, track]) => !view.hidden[side.number].has(track)) : []));
  const longest = [...shown].sort(([a, s], [b, t]) => b.rowsOf(t).length - a.rowsOf(s).length).slice(0, MOST_CURVES);
  const most = shown.length > MOST_CURVES ? `Of ${shown.length} persons that are switched on the ${MOST_CURVES} longest in view. ` : "";
  $("curve-note").textContent = most + (sides.length > 1 ? "Dashed: before." : "");
  return shown.filter((each) => longest.includes(each));
}

// Angles that a skeleton has: at each keypoint between two of its bones.
function jointAngles() {
  const names = lead.names, at = names.map(() => []);
  for (const [a, b] of lead.skeleton.bones) { at[a].push(b); at[b].push(a); }
  const found = [];
  at.forEach((ends, b) => ends.forEach((a, n) => ends.slice(n + 1).forEach((c) => {
    found.push(angleOf(a, b, c, ends.length === 2 ? names[b] : `${names[b]}: ${names[a]}, ${names[c]}`, ends.length === 2));
  })));
  const rank = (each) => (/knee/i.test(each.title) ? 0 : /elbow/i.test(each.title) ? 1 : /hip|shoulder/i.test(each.title) ? 2 : 3);
  found.sort((a, b) => b.simple - a.simple || rank(a) - rank(b));
  found.slice(0, 3).forEach((each) => { each.on_show = each.simple; });
  return found;
}

function angleOf(a, b, c, title, simple = false) {
  const wantedNames = [a, b, c].map((k) => lead.names[k]);
  const on = (side) => {
    const three = wantedNames.map((name) => side.names.indexOf(name));
    return three.includes(-1) ? null : three;
  };
  return { title, simple, on, on_show: false };
}

function makeCharts() {
  const title = lead.calibrated ? "Confidence (mean of the keypoints)" : "Score (mean of the keypoints)";
  const chosen = angles.filter((each) => each.on_show).map((each) => new Chart(
    `${each.title}, degrees`, "°", 180, 45,
    (side, row) => { const three = each.on(side); return three && side.angle(row, three, view.layers.raw, view.least); }, goTo));
  charts = [new Chart(title, "", 1, 0.25, (side, row) => side.meanConfidence(row), goTo), ...chosen];
  $("charts").replaceChildren(...charts.map((each) => each.figure));
  refresh();
}

function listAngles() {
  $("angle-list").replaceChildren(...angles.map((each) => {
    const box = element("input", { type: "checkbox" });
    box.checked = each.on_show;
    box.addEventListener("change", () => { each.on_show = box.checked; makeCharts(); });
    return element("label", {}, box, each.title);
  }));
}

function listPersons() {
  const items = sides.flatMap((side) => side.ids.map((_, track) => {
    const box = element("input", { type: "checkbox", "data-person": `${side.number} ${track}` });
    box.checked = true;
    box.addEventListener("change", () => {
      if (box.checked) view.hidden[side.number].delete(track); else view.hidden[side.number].add(track);
      changed();
    });
    const which = sides.length > 1 ? `${side.number ? "After" : "Before"}: ` : "";
    const share = Math.round(100 * side.rowsOf(track).length / side.count);
    const label = element("label", {}, box, element("i", { class: "chip", color: colorOf(side, track) }),
      `${which}${side.tracked ? "person" : "no."} ${side.label(track)}`, element("small", {}, `${share} %`));
    return element("li", {}, label);
  }));
  $("person-list").replaceChildren(...items);
}

function switchAll(on) {
  sides.forEach((side, n) => { view.hidden[n] = new Set(on ? [] : side.ids.keys()); });
  for (const box of document.querySelectorAll("[data-person]")) box.checked = on;
  changed();
}

function changed() {
  view.version++;
  refresh();
}

function listEvents() {
  const found = sides.flatMap((side) => {
    const which = sides.length > 1 ? ` (${side.number ? "after" : "before"})` : "";
    const ids = side.changes.map(({ at, before, after, kind }) => [side.times[at], kind === "swap"
      ? `persons ${before} and ${after} probably exchange their ids${which}`
      : `person ${before} probably goes on as ${after}${which}`]);
    const gaps = !side.tracked ? [] : side.ids.flatMap((_, track) => side.stretches(track).slice(0, -1).map(([, last], n) => {
      const next = side.stretches(track)[n + 1][0], from = side.times[last] + side.duration(last);
      return [from, `person ${side.label(track)} is absent for ${(side.times[next] - from).toFixed(2)} s${which}`];
    }));
    return [...ids, ...gaps];
  }).sort((a, b) => a[0] - b[0]);
  const left = sides.reduce((sum, side) => sum + side.changes_left_out, 0) + Math.max(0, found.length - 500);
  $("events").hidden = !lead.tracked;
  $("events").querySelector("summary").textContent = found.length
    ? `Gaps and changes of id (${found.length}${left ? `, ${left} more not listed` : ""})` : "No gaps and no changes of id";
  $("events").querySelector("ol").replaceChildren(...found.slice(0, 500).map(([time_s, text]) => {
    const button = element("button", { type: "button" }, `${seconds(time_s)}: ${text}`);
    button.addEventListener("click", () => goTo(time_s + 1e-4));
    return element("li", {}, button);
  }));
}

function say(text) { $("status").textContent = text; }

// The first clip that plays, else an empty ground.  before: what was tried, a sentence.
function open(clips, before = "") {
  player?.remove?.();
  if (meta.media.kind === "images") {
    let failed = 0;
    player = new ImagePlayer(lead, onFrame, meta.media.base, (file) => {
      failed++;
      say(`${failed} of the images cannot be shown, such as ${file}; skeletons are drawn on an empty ground there.`);
      refresh();
    });
  } else if (clips.length) {
    const [clip, ...rest] = clips;
    player = new VideoPlayer(lead, onFrame, clip, stages[0].stage, () => {
      open(rest, `This browser cannot play ${clip.name}. `);
    });
    if (clip.drawn) {
      say(`${before}The overlay ${clip.name} is shown: skeletons are drawn in it already, so bones and keypoints are switched off here.`);
      for (const layer of ["bones", "points", "ids"]) setLayer(layer, false);
    }
  } else {
    player = new ClockPlayer(lead, onFrame);
    if (before) say(`${before}Skeletons are drawn on an empty ground.`);
  }
  player.rate = Number($("rate").value);
  shown_s = lead.times[0];
  seek(0);
  refresh();
}

function setLayer(name, on) {
  document.querySelector(`[data-layer="${name}"]`).checked = on;
  view.layers[name] = on;
  $("scale").hidden = !view.layers.confidence;
  if (name === "raw") makeCharts();
  changed();
}

function toggle() { if (player.playing) player.pause(); else player.play(); refresh(); }

function step(count) {
  if (player.playing) player.pause();
  seek((wanted ?? frame) + count);
}

function onKey(event) {
  const target = event.target, tag = target.tagName;
  if (event.altKey || event.ctrlKey || event.metaKey || tag === "SELECT" || (tag === "INPUT" && target.type === "text")) return;
  if (event.key === " " && /^(BUTTON|SUMMARY|INPUT)$/.test(tag) && target.id !== "play" && target.type !== "range") return;
  if (/^Arrow|Home|End/.test(event.key) && target.type === "range" && target.id !== "scrub") return;
  const second = () => lead.frameAt(lead.times[wanted ?? frame] + 1 + 1e-4) - (wanted ?? frame);
  const secondBack = () => lead.frameAt(lead.times[wanted ?? frame] - 1 + 1e-4) - (wanted ?? frame);
  const layer = { b: "bones", k: "points", i: "ids", c: "confidence", r: "raw" }[event.key.toLowerCase()];
  if (event.key === " ") toggle();
  else if (event.key === "ArrowRight") step(event.shiftKey ? Math.max(1, second()) : 1);
  else if (event.key === "ArrowLeft") step(event.shiftKey ? Math.min(-1, secondBack()) : -1);
  else if (event.key === "Home") step(-lead.count);
  else if (event.key === "End") step(lead.count);
  else if (layer && !document.querySelector(`[data-layer="${layer}"]`).disabled) setLayer(layer, !view.layers[layer]);
  else return;
  event.preventDefault();
}

function describe() {
  $("title").textContent = meta.title;
  const persons = lead.tracked ? `${lead.ids.length} persons` : "persons not tracked";
  const [width, height] = lead.size, length = lead.count ? lead.times[lead.count - 1] - lead.times[0] : 0;
  const count = `${lead.count.toLocaleString("en")} ${lead.files.length ? "images" : "frames"}`;
  $("facts").textContent = [`${width} × ${height} px`, count, ...(lead.files.length ? [] : [seconds(length)]), persons,
    ...new Set(sides.map((side) => side.model))].filter(Boolean).join(" · ");
  const notes = [...meta.notes, ...(meta.media.note ? [meta.media.note] : [])];
  $("notes").replaceChildren(...notes.map((note) => element("li", {}, note)));
  $("foot").textContent = `Made by posekit ${meta.posekit} from results of ${lead.source || "an unnamed source"}.`;
  $("layer-confidence").textContent = lead.calibrated ? "Confidence" : "Score";
  $("scrub").max = lead.count - 1;
  for (const id of ["timeline-part", "curves-part"]) $(id).hidden = !lead.tracked && (id === "curves-part" || lead.count < 2);
  $("timeline-help").textContent = lead.tracked
    ? "A bar is a person in view, a dashed line a gap, a red tick a probable change of id. Click to go there."
    : "How many persons each frame has. Click to go there.";
  document.querySelector(".viewer").classList.toggle("two", sides.length > 1);
  $("stages").append(...stages.map((each) => each.figure));
  const raw = document.querySelector('[data-layer="raw"]');
  raw.disabled = !sides.some((side) => side.has("raw"));
  if (raw.disabled) raw.parentElement.title = "These results were not smoothed";
}

function connect() {
  for (const box of document.querySelectorAll("[data-layer]")) {
    view.layers[box.dataset.layer] = box.checked = box.defaultChecked;
    box.addEventListener("change", () => setLayer(box.dataset.layer, box.checked));
  }
  $("play").addEventListener("click", toggle);
  $("back").addEventListener("click", () => step(-1));
  $("forward").addEventListener("click", () => step(1));
  $("scrub").addEventListener("input", () => seek(Number($("scrub").value)));
  $("rate").addEventListener("change", () => { player.rate = Number($("rate").value); });
  $("least").addEventListener("input", () => {
    view.least = Number($("least").value);
    $("least-text").value = view.least.toFixed(2);
    changed();
  });
  $("window").addEventListener("change", () => { view.window_s = Number($("window").value); refresh(); });
  $("all").addEventListener("click", () => switchAll(true));
  $("none").addEventListener("click", () => switchAll(false));
  for (const id of ["angle-a", "angle-b", "angle-c"]) {
    $(id).replaceChildren(...lead.names.map((name, k) => element("option", { value: k }, name)));
  }
  $("angle-add").addEventListener("click", () => {
    const [a, b, c] = ["angle-a", "angle-b", "angle-c"].map((id) => Number($(id).value));
    if (new Set([a, b, c]).size < 3) return;
    angles.unshift(angleOf(a, b, c, `${lead.names[b]}: ${lead.names[a]}, ${lead.names[c]}`));
    angles[0].on_show = true;
    listAngles();
    makeCharts();
  });
  const name = meta.title.replace(/\.[^.]*$/, "");
  const csv = {
    persons: () => save(`${name}_persons.csv`, table.csv()),
    keypoints: () => save(`${name}_keypoints.csv`, keypointsCsv(sides)),
    angles: () => save(`${name}_angles.csv`, anglesCsv(sides, angles.filter((each) => each.on_show), view)),
  };
  for (const button of document.querySelectorAll("[data-csv]")) button.addEventListener("click", csv[button.dataset.csv]);
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", (event) => { if (!$("angles").contains(event.target)) $("angles").open = false; });
  new ResizeObserver(() => { for (const each of stages) each.fit(); changed(); }).observe(document.body);
}

function start() {
  connect();
  listPersons();
  listAngles();
  listEvents();
  for (const each of stages) each.fit();
  makeCharts();
  open(meta.media.clips);
}

describe();
if (lead.count) start();
else document.querySelector("main").hidden = true;
