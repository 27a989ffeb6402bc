// A canvas with the frame on show and the skeletons of one result on it.

const RIM = "rgba(18, 20, 24, 0.85)";
const RAMP = [[91, 26, 139], [194, 65, 108], [249, 142, 60], [252, 245, 168]];
function rampColor(share) {
  const at = Math.max(0, Math.min(1, share)) * (RAMP.length - 1), n = Math.min(RAMP.length - 2, Math.floor(at));
  return `rgb(${RAMP[n].map((low, c) => Math.round(low + (RAMP[n + 1][c] - low) * (at - n))).join(" ")})`;
}

class Stage {
  constructor(side, caption) {
    this.side = side;
    this.canvas = element("canvas", { role: "img", "aria-label": `${caption}: skeletons on the frame on show` });
    this.stage = element("div", { class: "stage" }, this.canvas);
    this.figure = element("figure", {}, this.stage);
    if (caption) {
      this.figure.prepend(element("figcaption", {}, caption, element("span", {}, ` ${side.model}`)));
    }
  }

  // The largest size that fits, in CSS px; sharp on dense displays.
  fit() {
    const [width, height] = this.side.size;
    const wide = this.figure.clientWidth, high = Math.max(240, window.innerHeight * 0.68);
    const scale = Math.min(wide / width, high / height);
    const dense = window.devicePixelRatio || 1;
    this.css = [Math.max(1, Math.floor(width * scale)), Math.max(1, Math.floor(height * scale))];
    this.canvas.style.width = `${this.css[0]}px`;
    this.canvas.style.height = `${this.css[1]}px`;
    const pixels = this.css.map((each) => Math.round(each * dense));
    if (this.canvas.width !== pixels[0] || this.canvas.height !== pixels[1]) {
      [this.canvas.width, this.canvas.height] = pixels;
    }
  }

  // frame: -1 where the results have none for what is on show.
  paint(frame, player, view) {
    const context = this.canvas.getContext("2d"), side = this.side;
    const [width, height] = side.sizeOf(Math.max(0, frame));
    const scale = Math.min(this.canvas.width / width, this.canvas.height / height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#14171c";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.translate((this.canvas.width - width * scale) / 2, (this.canvas.height - height * scale) / 2);
    if (view.layers.media) player.paint(context, frame, width * scale, height * scale);
    if (frame < 0) return;
    const starts = side.array("starts"), tracks = side.array("tracks");
    for (let row = starts[frame]; row < starts[frame + 1]; row++) {
      if (view.hidden[side.number].has(tracks[row])) continue;
      this.person(context, row, scale, view, colorOf(side, tracks[row]));
    }
  }

  person(context, row, scale, view, color) {
    const side = this.side, { layers, least } = view;
    const box = Array.from(side.array("boxes").subarray(4 * row, 4 * row + 4), (v) => v * side.step_px * scale);
    const size = Math.max(box[2] - box[0], box[3] - box[1]);
    const line = Math.max(1.2, Math.min(5, size * 0.012)) * (window.devicePixelRatio || 1) ** 0.5;
    // the center of the first pixel is (0, 0)
    const points = side.names.map((_, k) => {
      const point = side.score(row, k) < least ? null : side.point(row, k, layers.raw);
      return point && [(point[0] + 0.5) * scale, (point[1] + 0.5) * scale];
    });
    if (layers.boxes) {
      context.lineWidth = Math.max(1, line / 2);
      context.strokeStyle = color;
      context.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
    }
    context.lineCap = "round";
    if (layers.bones) {
      for (const [style, extra] of [[RIM, line * 0.8], [color, 0]]) {
        context.strokeStyle = style;
        context.lineWidth = line + extra;
        context.beginPath();
        for (const [a, b] of side.skeleton.bones) {
          if (points[a] && points[b]) { context.moveTo(...points[a]); context.lineTo(...points[b]); }
        }
        context.stroke();
      }
    }
    if (layers.points || layers.confidence) this.dots(context, row, points, line, view, color);
    if (layers.ids) this.tag(context, row, box, color);
  }

  dots(context, row, points, line, view, color) {
    const radius = line * (view.layers.confidence ? 1.5 : 1.15);
    points.forEach((point, k) => {
      if (!point) return;
      context.beginPath();
      context.arc(point[0], point[1], radius, 0, 2 * Math.PI);
      context.fillStyle = view.layers.confidence ? rampColor(this.side.confidence(row, k)) : "#fff";
      context.fill();
      context.lineWidth = Math.max(1, line * 0.55);
      context.strokeStyle = view.layers.confidence ? RIM : color;
      context.stroke();
    });
  }

  tag(context, row, box, color) {
    const dense = window.devicePixelRatio || 1, text = this.side.label(this.side.array("tracks")[row]);
    context.font = `600 ${13 * dense}px system-ui, sans-serif`;
    const width = context.measureText(text).width + 10 * dense, height = 19 * dense;
    const x = Math.max(0, Math.min(box[0], this.canvas.width - width));
    const y = Math.max(0, box[1] - height);
    context.fillStyle = color;
    context.fillRect(x, y, width, height);
    context.fillStyle = "#fff";
    context.textBaseline = "middle";
    context.fillText(text, x + 5 * dense, y + height / 2 + dense * 0.5);
  }
}
