// The timeline of a video: score curves, moments, truth, playhead.

import { badge, clock, element, period, scored } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const CURVE = 96;
const ROW = 32;
const LANE = 27;
const NARROWEST = 10;
const LEGIBLE = 60;
const AXIS = 24;
const GUTTER = 46;
const EDGE = 14;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];

function drawn(name, attributes = {}, text = undefined) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export class Timeline {
  // `onSeek` gets a time; `onChoose` a moment, and the row of its sentence.
  constructor(figure, onSeek, onChoose) {
    this.figure = figure;
    this.onSeek = onSeek;
    this.onChoose = onChoose;
    this.shown = null;
    this.time = 0;
    new ResizeObserver(() => this.#drawIfWider()).observe(figure);
  }

  // `about` has `duration`, `calibrated`, `hasLikelihoods` (whether all its
  // scores are), `truth`, `chosen`, and `rows`: of each sentence `query`, `row`
  // (its number among all that were asked), `moments` and, where there is one,
  // `curve`.
  show(about) {
    this.shown = about;
    this.figure.hidden = !about;
    this.width = 0;
    if (about) this.#draw();
  }

  setTime(time) {
    this.time = time;
    if (!this.shown || !this.head) return;
    const x = this.#x(Math.min(time, this.shown.duration));
    this.head.setAttribute("x1", x);
    this.head.setAttribute("x2", x);
  }

  #drawIfWider() {
    if (this.shown && this.figure.clientWidth !== this.width) this.#draw();
  }

  #x(time) {
    const room = this.width - GUTTER - EDGE;
    return GUTTER + (time / this.shown.duration) * room;
  }

  #draw() {
    const { rows, truth, duration } = this.shown;
    this.width = this.figure.clientWidth;
    if (!this.width || !duration) return;
    const focused = this.figure.contains(document.activeElement)
      ? document.activeElement.dataset.key
      : null;
    const hasCurve = rows.some((row) => row.curve);
    const top = hasCurve ? CURVE + 8 : 0;
    const lists = rows.map((row) => row.moments);
    if (truth.length) lists.push(truth);
    const lanes = lists.map((moments) => this.#lanes(moments));
    const tops = [top];
    for (const used of lanes) tops.push(tops.at(-1) + ROW + LANE * Math.max(...used, 0));
    const height = Math.max(tops.at(-1), top + ROW) + AXIS;
    const svg = drawn("svg", {
      height,
      viewBox: `0 0 ${this.width} ${height}`,
      role: "img",
      "aria-label": this.#described(),
    });
    const room = { x: GUTTER, y: 0, width: this.width - GUTTER - EDGE, height: height - AXIS };
    svg.append(drawn("rect", { class: "ground", rx: 4, ...room }));
    this.#drawAxis(svg, height - AXIS);
    if (hasCurve) this.#drawCurves(svg);
    const { chosen } = this.shown;
    if (chosen) {
      const x = this.#x(chosen.start);
      const width = this.#x(Math.min(chosen.end, duration)) - x;
      svg.append(drawn("rect", { class: "chosen", x, y: 0, width, height: height - AXIS }));
    }
    this.head = drawn("line", { class: "head", y1: 0, y2: height - AXIS });
    svg.append(this.head);
    svg.addEventListener("click", (event) => {
      const x = event.clientX - svg.getBoundingClientRect().left;
      const share = (x - GUTTER) / (this.width - GUTTER - EDGE);
      this.onSeek(Math.min(Math.max(share, 0), 1) * duration);
    });
    const plot = element("div", { className: "plot" }, svg);
    rows.forEach((row, place) => this.#addRow(plot, row, tops[place], lanes[place]));
    if (truth.length) this.#addTruth(plot, tops[rows.length], lanes[rows.length]);
    this.figure.replaceChildren(plot, element("figcaption", {}, this.#caption(hasCurve)));
    this.setTime(this.time);
    if (focused) this.figure.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  // Of each moment how many lanes it lies below the first, so that none hides
  // another.
  #lanes(moments) {
    const taken = [];
    return moments.map((moment) => {
      const [start, end] = this.#ends(moment);
      const isFree = (lane) => lane.every((other) => end <= other[0] || start >= other[1]);
      let lane = taken.findIndex(isFree);
      if (lane < 0) lane = taken.push([]) - 1;
      taken[lane].push([start, end]);
      return lane;
    });
  }

  #ends(moment) {
    const start = this.#x(Math.max(moment.start, 0));
    const end = this.#x(Math.min(moment.end, this.shown.duration));
    return [start, Math.max(end, start + NARROWEST)];
  }

  #drawAxis(svg, bottom) {
    const { duration } = this.shown;
    const most = Math.max((this.width - GUTTER) / 76, 2);
    const step = STEPS.find((size) => duration / size <= most) ?? STEPS.at(-1);
    for (let time = 0; time <= duration; time += step) {
      const x = this.#x(time);
      svg.append(drawn("line", { class: "grid", x1: x, x2: x, y1: 0, y2: bottom }));
      const label = { x, y: bottom + 16, "text-anchor": "middle" };
      svg.append(drawn("text", label, clock(time, 0)));
    }
  }

  #drawCurves(svg) {
    const { rows, hasLikelihoods } = this.shown;
    const all = rows.flatMap((row) => row.curve?.scores ?? []);
    const low = hasLikelihoods ? 0 : Math.min(...all);
    const high = hasLikelihoods ? Math.max(1, ...all) : Math.max(...all, low + 1e-6);
    const place = (score) => 4 + (CURVE - 8) * (1 - (score - low) / (high - low));
    const marks = hasLikelihoods ? { "100 %": 1, "50 %": 0.5, "0 %": 0 } : { high, low };
    for (const [text, score] of Object.entries(marks)) {
      const y = place(score);
      const end = this.width - EDGE;
      svg.append(drawn("line", { class: "grid", x1: GUTTER, x2: end, y1: y, y2: y }));
      svg.append(drawn("text", { x: GUTTER - 5, y: y + 4, "text-anchor": "end", "font-size": 11 }, text.replace(" ", "")));
    }
    rows.forEach(({ curve, row: number }) => {
      if (!curve) return;
      const points = curve.times.map(
        (time, i) => `${this.#x(time).toFixed(1)},${place(curve.scores[i]).toFixed(1)}`,
      );
      svg.append(drawn("polyline", { class: `curve s${number}`, points: points.join(" ") }));
    });
  }

  #addRow(plot, row, top, lanes) {
    const number = row.row;
    const name = element("span", { className: "row-name", title: row.query }, badge(number));
    name.style.top = `${top + 3}px`;
    plot.append(name);
    row.moments.forEach((moment, rank) => {
      const said = scored(moment, this.shown.calibrated);
      const bar = this.#bar(moment, top + LANE * lanes[rank], {
        className: `bar q${number}`,
        title: `${period(moment)}, ${said}`,
        "aria-label": `Sentence ${number + 1}, moment ${rank + 1}: ${period(moment)}, ${said}`,
        dataset: { key: `${number}-${rank}` },
      });
      if (parseFloat(bar.style.width) > 16) bar.textContent = rank + 1;
      const { chosen } = this.shown;
      const isChosen =
        chosen && chosen.row === number && chosen.start === moment.start && chosen.end === moment.end;
      if (isChosen) bar.setAttribute("aria-current", "true");
      bar.addEventListener("click", () => this.onChoose(moment, number));
      plot.append(bar);
    });
  }

  #addTruth(plot, top, lanes) {
    const name = element("span", { className: "row-name", title: "Known moments" }, "known");
    name.style.top = `${top + 3}px`;
    plot.append(name);
    this.shown.truth.forEach((known, rank) => {
      const bar = this.#bar(known, top + LANE * lanes[rank], {
        className: "bar truth",
        title: `Known: “${known.query}”, ${period(known)}`,
        "aria-label": `Known moment “${known.query}”: ${period(known)}`,
        dataset: { key: `truth-${rank}` },
      });
      if (parseFloat(bar.style.width) > LEGIBLE) bar.append(element("span", {}, known.query));
      bar.addEventListener("click", () => this.onChoose(known, null));
      plot.append(bar);
    });
  }

  #bar(moment, top, properties) {
    const bar = element("button", { type: "button", ...properties });
    const [start, end] = this.#ends(moment);
    bar.style.left = `${start}px`;
    bar.style.width = `${end - start}px`;
    bar.style.top = `${top + 3}px`;
    return bar;
  }

  #described() {
    return this.shown.rows
      .map(({ query, row: number, moments, curve }) => {
        const best = moments.length ? `the best moment is ${period(moments[0])}` : "no moment";
        return `Sentence ${number + 1}, “${query}”: ${best}${curve ? ", with the score over time" : ""}.`;
      })
      .join(" ") || "The time of the video.";
  }

  #caption(hasCurve) {
    const { rows, truth, hasLikelihoods } = this.shown;
    const parts = [];
    if (hasCurve) {
      parts.push(
        hasLikelihoods
          ? "Line: how likely the best moment around each time is right."
          : "Line: the score of the best moment around each time.",
      );
    }
    if (rows.length) parts.push("Bars: the moments found, best first.");
    if (truth.length) parts.push("Stripes: known moments, as somebody marked them; choose one to read its sentence.");
    return parts.join(" ");
  }
}
