// What plays under the skeletons: a video, images, or nothing. All of them have the same methods.
// `onFrame(time_s)` is called when another frame is on show, with its time on the results' clock.

class ClockPlayer { // nothing to show: time passes by itself
  constructor(side, onFrame) {
    this.side = side;
    this.onFrame = onFrame;
    this.rate = 1;
    this.playing = false;
    this.time_s = side.times[0];
    this.drawn = false;
  }

  get end_s() { return this.side.times[this.side.count - 1]; }

  play() {
    if (this.playing) return;
    if (this.time_s >= this.end_s) this.time_s = this.side.times[0];
    this.playing = true;
    let before = performance.now();
    const tick = (now) => {
      if (!this.playing) return;
      this.time_s = Math.min(this.end_s, this.time_s + (now - before) / 1000 * this.rate);
      before = now;
      if (this.time_s >= this.end_s) this.playing = false;
      this.onFrame(this.time_s);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  pause() { this.playing = false; }

  seek(frame) {
    this.time_s = this.side.times[frame];
    this.onFrame(this.time_s);
  }

  paint() { return false; }
}

class ImagePlayer extends ClockPlayer {
  constructor(side, onFrame, base, onError) {
    super(side, onFrame);
    this.base = base;
    this.onError = onError;
    this.images = new Map();
  }

  image(frame) {
    const file = this.side.files[frame];
    if (!this.images.has(file)) {
      const image = new Image();
      image.onload = () => this.onFrame(this.time_s);
      image.onerror = () => this.onError(file);
      image.src = this.base + file.split("/").map(encodeURIComponent).join("/");
      this.images.set(file, image);
      if (this.images.size > 40) this.images.delete(this.images.keys().next().value);
    }
    return this.images.get(file);
  }

  paint(context, frame, width, height) {
    const image = this.image(frame);
    if (frame + 1 < this.side.count) this.image(frame + 1); // the next one is loaded early
    if (!image.complete || !image.naturalWidth) return false;
    context.drawImage(image, 0, 0, width, height);
    return true;
  }
}

class VideoPlayer {
  // stage: the element under whose canvas the video lies.  onFail: the browser cannot play the clip.
  constructor(side, onFrame, clip, stage, onFail) {
    this.side = side;
    this.onFrame = onFrame;
    this.drawn = clip.drawn;
    this.shift_s = clip.shift_s;
    this.first_s = 0; // media time of the clip's first frame: some begin later than 0
    this.measured = false;
    this.pending = null; // a frame to go to as soon as the first one is there
    this.waiting = null;
    this.nudges = 0;
    this.still = document.createElement("canvas");
    const video = this.video = element("video", { preload: "auto", tabindex: "-1", "aria-hidden": "true" });
    video.muted = true;
    video.playsInline = true;
    video.onerror = () => onFail();
    video.onended = () => this.onFrame(this.time_s);
    video.onpause = () => this.onFrame(this.time_s);
    video.onseeked = () => {
      if (this.missed) this.shown(this.media_s);
      this.settle();
    };
    video.onloadedmetadata = () => { if (!video.videoWidth) onFail(); };
    if (video.requestVideoFrameCallback) {
      const shown = (now, frame) => {
        if (!this.measured) this.first_s = frame.mediaTime;
        this.measured = true;
        this.shown(frame.mediaTime);
        if (this.pending !== null) this.seek(this.pending);
        video.requestVideoFrameCallback(shown);
      };
      video.requestVideoFrameCallback(shown);
    } else {
      this.measured = true;
      const poll = () => {
        if (!video.seeking && video.readyState > 1 && video.currentTime !== this.polled) {
          this.polled = video.currentTime;
          this.shown(this.polled);
        }
        requestAnimationFrame(poll);
      };
      requestAnimationFrame(poll);
    }
    video.src = clip.href;
    stage.prepend(video);
  }

  shown(media_s) {
    clearTimeout(this.waiting);
    this.media_s = media_s;
    this.keep();
    if (this.missed) return;
    this.arrived = true;
    this.onFrame(this.time_s);
  }

  // A copy of the frame on show: while the video seeks, it has none to give.
  keep() {
    const { video, still } = this;
    this.missed = video.readyState < 2; // the frame is there before the seek has ended
    if (this.missed) return;
    if (still.width !== video.videoWidth || still.height !== video.videoHeight) {
      [still.width, still.height] = [video.videoWidth, video.videoHeight];
    }
    still.getContext("2d", { alpha: false }).drawImage(video, 0, 0);
  }

  // Half a millisecond covers the rounding of media times.
  get time_s() { return (this.media_s ?? this.first_s) - this.first_s + this.shift_s + 0.0005; }

  get playing() { return !this.video.paused && !this.video.ended; }

  get rate() { return this.video.playbackRate; }

  set rate(value) { this.video.playbackRate = value; }

  play() {
    if (this.time_s >= this.side.times[this.side.count - 1]) this.seek(0);
    this.video.play().catch(() => this.onFrame(this.time_s));
  }

  pause() { this.video.pause(); }

  // Not at once: a seek from within the callback of a frame may never show another one.
  seek(frame) {
    this.pending = frame;
    if (this.measured) setTimeout(() => this.jump(), 0);
  }

  // Into the middle of the frame, so that no rounding leads to its neighbor.
  jump() {
    if (this.pending === null) return;
    const into = Math.min(this.side.duration(this.pending) / 2, 0.02);
    this.video.currentTime = Math.max(0, this.side.times[this.pending] - this.shift_s + this.first_s + into);
    this.pending = null;
    this.nudges = 0;
    this.arrived = false;
  }

  // After a seek that brought no frame: it may be within the one on show, or the browser owes one.
  settle() {
    clearTimeout(this.waiting);
    if (this.arrived) return;
    this.waiting = setTimeout(() => {
      if (this.playing) return;
      if (this.nudges++ < 2) this.video.currentTime += 0.0005;
      else {
        this.media_s = this.video.currentTime;
        this.keep();
        this.onFrame(this.time_s);
      }
    }, 400);
  }

  paint(context, frame, width, height) {
    if (this.media_s === undefined) return false;
    context.drawImage(this.still, 0, 0, width, height);
    return true;
  }

  remove() {
    this.video.onerror = this.video.onpause = this.video.onended = null;
    this.video.remove();
  }
}
