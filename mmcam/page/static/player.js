// A clip: its player, a strip of frames, and the evidence over time under it.

class Player {
  // `onframe` is called with each frame that is shown.
  constructor(record, stage, onframe) {
    Object.assign(this, { record, stage, onframe, frame: 0, wanted: 0, plays: false });
    this.box = record.seen.player ? record.seen.player.box : null;
    this.element = make("div", { class: "player" }, this.transport(), this.timeline());
    const clip = record.targets.map((target) => target.clip).find(Boolean);
    if (clip && record.seen.player) this.load(clip);
    else this.cannot();
  }

  transport() {
    this.button = make("button", { type: "button", class: "primary", click: () => this.toggle() }, "Play");
    this.scrubber = make("input", {
      type: "range", min: 0, max: this.record.frames - 1, step: 1, value: 0, "aria-label": "Frame",
      input: () => this.seek(Number(this.scrubber.value)),
    });
    this.time = make("output", { class: "time" });
    this.jump = make("button", { type: "button", click: () => this.toPeak() }, "Jump to the peak");
    return make("div", { class: "transport" }, this.button, this.scrubber, this.time, this.jump);
  }

  timeline() {
    const stills = this.record.seen.frames.map((one) => make("img", { src: one.picture, alt: "", draggable: "false" }));
    this.curve = svg("svg", { class: "curve", viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img" });
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
      loadeddata: () => this.ready(),
      error: () => this.cannot(),
      ended: () => this.stopped(),
      pause: () => this.stopped(),
      seeked: () => this.follow(),
    });
    this.video.muted = true;
    this.stage.photo.after(this.video);
  }

  // The written clip may show several panes; only the original one is let through.
  ready() {
    const [height, width] = this.record.size;
    this.plays = true;
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
    this.seek(this.wanted);
  }

  cannot() {
    if (this.video) this.video.remove();
    this.plays = false;
    this.button.hidden = true;
    if (this.target) this.tell();
    this.seek(this.wanted);
  }

  toggle() {
    if (this.video.paused) {
      this.video.play().then(() => this.started(), () => this.cannot());
    } else this.video.pause();
  }

  started() {
    this.button.textContent = "Pause";
    const step = (now, shown) => {
      this.follow(shown && shown.mediaTime);
      if (!this.video.paused) this.video.requestVideoFrameCallback ? this.video.requestVideoFrameCallback(step) : requestAnimationFrame(step);
    };
    step();
  }

  stopped() {
    this.button.textContent = "Play";
    this.follow();
  }

  follow(seconds = this.video.currentTime) {
    this.at(clamp(Math.floor(seconds * this.record.fps + 0.001), 0, this.record.frames - 1));
  }

  // Without a player, the frames that there are stand for those around them.
  seek(frame) {
    this.wanted = frame;
    if (this.plays) this.video.currentTime = (frame + 0.5) / this.record.fps;
    const frames = this.record.seen.frames;
    this.at(this.plays || !frames.length ? frame : frames[nearestStill(frames, frame)].frame);
  }

  at(frame) {
    this.frame = frame;
    this.scrubber.value = frame;
    const seconds = (n) => (n / this.record.fps).toFixed(2);
    this.time.textContent = `${seconds(frame)} / ${seconds(this.record.frames)} s`;
    this.scrubber.setAttribute("aria-valuetext", `${seconds(frame)} seconds, frame ${frame}`);
    this.cursor.style.left = `${(100 * (frame + 0.5)) / this.record.frames}%`;
    this.onframe(frame);
  }

  toPeak() {
    if (this.plays) this.video.pause();
    this.seek(this.target.peak[2] || 0);
  }

  show(target) {
    if (this.target === target) return;
    this.target = target;
    if (this.video && !this.box && target.clip && this.video.getAttribute("src") !== target.clip) this.video.src = target.clip;
    this.jump.disabled = target.empty;
    const points = (target.evidence || []).map(([frame, value]) => [(1000 * (frame + 0.5)) / this.record.frames, value]);
    const most = Math.max(...points.map((point) => point[1] || 0)) || 1;
    const line = points.map(([x, value]) => (value === null ? null : `${x.toFixed(1)} ${(96 - 92 * (value / most)).toFixed(1)}`));
    const runs = stretches(line).map((run) => `M${run.join("L")}`);
    const areas = stretches(line).map((run) => {
      const edge = (point) => point.split(" ")[0];
      return `M${edge(run[0])} 100L${run.join("L")}L${edge(run[run.length - 1])} 100Z`;
    });
    this.curve.replaceChildren(
      svg("path", { d: areas.join(""), class: "area" }),
      svg("path", { d: runs.join(""), class: "line", "vector-effect": "non-scaling-stroke" }),
    );
    this.tell();
  }

  tell() {
    const { target } = this;
    const peak = target.peak[2];
    const when = target.empty || peak === null ? "no positive evidence" : `the map peaks at ${(peak / this.record.fps).toFixed(2)} s (frame ${peak})`;
    const cannot = this.button.hidden ? " The clip itself cannot be played here; its frames stand for it." : "";
    this.legend.textContent = `Evidence for “${name(target)}” over time: ${when}.${cannot}`;
    this.curve.setAttribute("aria-label", this.legend.textContent);
  }
}

// Runs of points with no gap in them.
function stretches(points) {
  const found = [[]];
  for (const point of points) {
    if (point !== null) found[found.length - 1].push(point);
    else if (found[found.length - 1].length) found.push([]);
  }
  return found.filter((run) => run.length);
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
