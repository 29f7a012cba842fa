// The player of a clip, with a strip of frames and the curve of evidence over time below it.

class Player {
  // `onframe` is called with the index of each frame that is shown.
  constructor(record, stage, onframe) {
    Object.assign(this, { record, stage, onframe, frame: 0, requested: 0, playable: false });
    this.box = record.seen.player ? record.seen.player.box : null;
    this.element = make("div", { class: "player" }, this.transport(), this.timeline());
    const clip = record.targets.map((target) => target.clip).find(Boolean);
    if (clip && record.seen.player) this.load(clip);
    else this.disable();
  }

  transport() {
    this.playButton = make("button", { type: "button", class: "primary", click: () => this.toggle() }, "Play");
    this.scrubber = make("input", {
      type: "range", min: 0, max: this.record.frames - 1, step: 1, value: 0, "aria-label": "Frame",
      input: () => this.seek(Number(this.scrubber.value)),
    });
    this.time = make("output", { class: "time" });
    this.peakButton = make("button", { type: "button", click: () => this.seekToPeak() }, "Jump to the peak");
    return make("div", { class: "transport" }, this.playButton, this.scrubber, this.time, this.peakButton);
  }

  timeline() {
    const stills = this.record.seen.frames.map((frame) => make("img", { src: frame.picture, alt: "", draggable: "false" }));
    this.curve = makeSvg("svg", { class: "curve", viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img" });
    this.cursor = make("div", { class: "cursor" });
    const seek = (event) => {
      const { left, width } = this.strip.getBoundingClientRect();
      if (event.buttons & 1) this.seek(Math.floor(clamp((event.clientX - left) / width, 0, 0.9999) * this.record.frames));
    };
    this.strip = make("div", { class: "strip", pointerdown: seek, pointermove: seek },
      make("div", { class: "stills", "aria-hidden": "true" }, ...stills), this.curve, this.cursor);
    this.legend = make("p", { class: "quiet" });
    return make("div", {}, this.strip, this.legend);
  }

  load(clip) {
    this.video = make("video", {
      src: clip, muted: true, playsinline: true, preload: "auto", tabindex: -1, "aria-hidden": "true", hidden: true,
      loadeddata: () => this.onLoaded(),
      error: () => this.disable(),
      ended: () => this.onPaused(),
      pause: () => this.onPaused(),
      seeked: () => this.syncToVideo(),
    });
    this.video.muted = true;
    this.stage.photo.after(this.video);
  }

  // The written clip may show several panes; the video is shifted so that only the original is visible.
  onLoaded() {
    const [height, width] = this.record.size;
    this.playable = true;
    this.video.hidden = false;
    if (this.box) {
      const [left, top] = this.box;
      this.video.style.width = `${(100 * this.video.videoWidth) / width}%`;
      this.video.style.left = `${(-100 * left) / width}%`;
      this.video.style.top = `${(-100 * top) / height}%`;
    } else {
      this.stage.element.classList.add("drawn");
      this.stage.element.style.aspectRatio = `${this.video.videoWidth} / ${this.video.videoHeight}`;
    }
    this.seek(this.requested);
  }

  // Without a playable clip, the embedded frames are shown instead.
  disable() {
    if (this.video) this.video.remove();
    this.playable = false;
    this.playButton.hidden = true;
    if (this.target) this.updateLegend();
    this.seek(this.requested);
  }

  toggle() {
    if (this.video.paused) {
      this.video.play().then(() => this.onStarted(), () => this.disable());
    } else this.video.pause();
  }

  onStarted() {
    this.playButton.textContent = "Pause";
    const step = (now, metadata) => {
      this.syncToVideo(metadata && metadata.mediaTime);
      if (!this.video.paused) this.video.requestVideoFrameCallback ? this.video.requestVideoFrameCallback(step) : requestAnimationFrame(step);
    };
    step();
  }

  onPaused() {
    this.playButton.textContent = "Play";
    this.syncToVideo();
  }

  syncToVideo(seconds = this.video.currentTime) {
    this.showFrame(clamp(Math.floor(seconds * this.record.fps + 0.001), 0, this.record.frames - 1));
  }

  // Without a playable clip, seek to the nearest embedded frame.
  seek(frame) {
    this.requested = frame;
    if (this.playable) this.video.currentTime = (frame + 0.5) / this.record.fps;
    const frames = this.record.seen.frames;
    this.showFrame(this.playable || !frames.length ? frame : frames[nearestFrame(frames, frame)].frame);
  }

  showFrame(frame) {
    this.frame = frame;
    this.scrubber.value = frame;
    const seconds = (index) => (index / this.record.fps).toFixed(2);
    this.time.textContent = `${seconds(frame)} / ${seconds(this.record.frames)} s`;
    this.scrubber.setAttribute("aria-valuetext", `${seconds(frame)} seconds, frame ${frame}`);
    this.cursor.style.left = `${(100 * (frame + 0.5)) / this.record.frames}%`;
    this.onframe(frame);
  }

  seekToPeak() {
    if (this.playable) this.video.pause();
    this.seek(this.target.peak[2] || 0);
  }

  show(target) {
    if (this.target === target) return;
    this.target = target;
    if (this.video && !this.box && target.clip && this.video.getAttribute("src") !== target.clip) this.video.src = target.clip;
    this.peakButton.disabled = target.empty;
    const points = (target.evidence || []).map(([frame, value]) => [(1000 * (frame + 0.5)) / this.record.frames, value]);
    const maximum = Math.max(...points.map((point) => point[1] || 0)) || 1;
    const coordinates = points.map(([x, value]) => (value === null ? null : `${x.toFixed(1)} ${(96 - 92 * (value / maximum)).toFixed(1)}`));
    const lines = contiguousRuns(coordinates).map((run) => `M${run.join("L")}`);
    const areas = contiguousRuns(coordinates).map((run) => {
      const x = (point) => point.split(" ")[0];
      return `M${x(run[0])} 100L${run.join("L")}L${x(run[run.length - 1])} 100Z`;
    });
    this.curve.replaceChildren(
      makeSvg("path", { d: areas.join(""), class: "area" }),
      makeSvg("path", { d: lines.join(""), class: "line", "vector-effect": "non-scaling-stroke" }),
    );
    this.updateLegend();
  }

  updateLegend() {
    const { target } = this;
    const peak = target.peak[2];
    const summary = target.empty || peak === null ? "no positive evidence" : `the map peaks at ${(peak / this.record.fps).toFixed(2)} s (frame ${peak})`;
    const notice = this.playButton.hidden ? " The clip cannot be played here; some of its frames are shown instead." : "";
    this.legend.textContent = `Evidence for “${displayName(target)}” over time: ${summary}.${notice}`;
    this.curve.setAttribute("aria-label", this.legend.textContent);
  }
}

// Split points into runs at the gaps, which are null.
function contiguousRuns(points) {
  const runs = [[]];
  for (const point of points) {
    if (point !== null) runs[runs.length - 1].push(point);
    else if (runs[runs.length - 1].length) runs.push([]);
  }
  return runs.filter((run) => run.length);
}

function makeSvg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
