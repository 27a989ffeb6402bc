// The table of persons, and what is saved as CSV.

const COLUMNS = [ // title, value of (side, track), digits
  ["Person", (side, track) => side.ids[track], null],
  ["First, s", (side, track) => side.times[side.frameOfRow[side.rowsOf(track)[0]]], 2],
  ["Last, s", (side, track) => side.times[side.frameOfRow[side.rowsOf(track).at(-1)]], 2],
  ["Frames", (side, track) => side.rowsOf(track).length, 0],
  ["Gaps", (side, track) => side.stretches(track).length - 1, 0],
  ["Longest gap, s", longestGap, 2],
  ["Mean confidence", meanOf, 2],
  ["Lowest", (side, track) => side.rowsOf(track).reduce((low, row) => Math.min(low, side.meanConfidence(row)), 1), 2],
  ["Height, px", heightOf, 0],
];

const PLACES = [ // of persons that are not tracked: value of (side, track, row)
  ["Where", (side, track, row) => side.files[side.frameOfRow[row]] ?? side.array("frames")[side.frameOfRow[row]], null],
  ["No.", (side, track) => side.ids[track] + 1, 0],
  ["Mean confidence", (side, track, row) => side.meanConfidence(row), 2],
  ["Height, px", (side, track, row) => boxHeight(side, row), 0],
];
const MOST_LINES = 1000;

function longestGap(side, track) {
  const found = side.stretches(track);
  return found.reduce((most, [first], n) => (n
    ? Math.max(most, side.times[first] - side.times[found[n - 1][1]] - side.duration(found[n - 1][1])) : most), 0);
}

function meanOf(side, track) {
  let sum = 0;
  for (const row of side.rowsOf(track)) sum += side.meanConfidence(row);
  return sum / side.rowsOf(track).length;
}

function boxHeight(side, row) {
  const boxes = side.array("boxes");
  return (boxes[4 * row + 3] - boxes[4 * row + 1]) * side.step_px;
}

function heightOf(side, track) {
  const heights = Array.from(side.rowsOf(track), (row) => boxHeight(side, row));
  return heights.sort((a, b) => a - b)[heights.length >> 1];
}

const textOf = (value, digits) => (digits === null ? String(value) : value.toFixed(digits));
const resultOf = (side) => (side.number ? "after" : "before");

// A line of tracked persons is a track; of others a person in a frame.
class PersonTable {
  // goTo: is called with (row, side) of a person whose line is chosen.
  constructor(table, sides, goTo) {
    this.table = table;
    this.goTo = goTo;
    const confidence = sides[0].calibrated ? "confidence" : "score";
    const two = sides.length > 1 ? [["Result", (side) => resultOf(side), null]] : [];
    const [first, ...rest] = sides.every((side) => side.tracked) ? COLUMNS : PLACES;
    this.columns = [first, ...two, ...rest].map(([title, ...more]) => [title.replace("confidence", confidence), ...more]);
    this.lines = sides.flatMap((side) => linesOf(side)).map(([side, track, row]) => (
      { side, track, row, cells: this.columns.map(([, value]) => value(side, track, row)) }));
    this.column = 0;
    this.descending = false;
    this.head();
    this.fill();
  }

  head() {
    const cells = this.columns.map(([title], n) => {
      const button = element("button", { type: "button" }, title);
      button.addEventListener("click", () => {
        this.descending = this.column === n ? !this.descending : n > 0;
        this.column = n;
        this.fill();
      });
      return element("th", { scope: "col" }, button);
    });
    this.table.tHead.replaceChildren(element("tr", {}, ...cells));
  }

  fill() {
    const sign = this.descending ? -1 : 1, at = this.column;
    this.lines.sort((a, b) => sign * (a.cells[at] < b.cells[at] ? -1 : a.cells[at] > b.cells[at] ? 1 : 0));
    [...this.table.tHead.rows[0].cells].forEach((cell, n) => {
      if (n === at) cell.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    this.table.tBodies[0].replaceChildren(...this.lines.slice(0, MOST_LINES).map((line) => this.row(line)));
    this.table.caption.textContent = this.lines.length > MOST_LINES
      ? `The first ${MOST_LINES} of ${this.lines.length} lines; the CSV has all.` : "";
  }

  row({ side, track, row, cells }) {
    const button = element("button", { type: "button", title: "Go there" }, textOf(cells[0], this.columns[0][2]));
    button.addEventListener("click", () => this.goTo(row, side));
    const made = element("tr", {}, element("td", {}, element("i", { class: "chip", color: colorOf(side, track) }), button),
      ...cells.slice(1).map((cell, n) => element("td", {}, textOf(cell, this.columns[n + 1][2]))));
    return made;
  }

  csv() {
    return [csvLine(this.columns.map(([title]) => title)),
      ...this.lines.map(({ cells }) => csvLine(cells.map((cell, n) => textOf(cell, this.columns[n][2]))))];
  }
}

// [side, track, first row] of each line.
function linesOf(side) {
  if (side.tracked) return side.ids.map((_, track) => [side, track, side.rowsOf(track)[0]]);
  return Array.from(side.array("tracks"), (track, row) => [side, track, row]);
}

function csvLine(cells) {
  return `${cells.map((cell) => {
    const text = cell === null || cell === undefined ? "" : String(cell);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(",")}\n`;
}

// The columns of posekit's own CSV; which of two results comes first.
function keypointsCsv(sides) {
  const confident = sides.some((side) => side.calibrated), two = sides.length > 1;
  const parts = [csvLine([...(two ? ["result"] : []), "frame", "time_s", "id", "keypoint", "x", "y", "score", "raw_x", "raw_y",
    ...(confident ? ["confidence"] : [])])];
  const number = (value) => (value === null ? "" : +value.toFixed(2));
  for (const side of sides) {
    const frames = side.array("frames"), tracks = side.array("tracks");
    for (let row = 0; row < side.rows; row++) {
      const f = side.frameOfRow[row];
      const head = [...(two ? [resultOf(side)] : []), frames[f], +side.times[f].toFixed(6), side.ids[tracks[row]]];
      parts.push(side.names.map((name, k) => {
        const [x, y] = side.point(row, k, false) || [null, null], [rx, ry] = side.point(row, k, true) || [null, null];
        return csvLine([...head, name, number(x), number(y), side.score(row, k).toFixed(3), number(rx), number(ry),
          ...(confident ? [side.calibrated ? side.confidence(row, k).toFixed(3) : ""] : [])]);
      }).join(""));
    }
  }
  return parts;
}

function anglesCsv(sides, angles, view) {
  const two = sides.length > 1;
  const parts = [csvLine([...(two ? ["result"] : []), "frame", "time_s", "id", ...angles.map((each) => `${each.title}_deg`)])];
  for (const side of sides) {
    const frames = side.array("frames"), tracks = side.array("tracks"), corners = angles.map((each) => each.on(side));
    for (let row = 0; row < side.rows; row++) {
      const f = side.frameOfRow[row];
      const values = corners.map((three) => three && side.angle(row, three, view.layers.raw, view.least)?.toFixed(2));
      parts.push(csvLine([...(two ? [resultOf(side)] : []), frames[f], +side.times[f].toFixed(6),
        side.ids[tracks[row]], ...values]));
    }
  }
  return parts;
}

function save(name, parts) {
  const url = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
