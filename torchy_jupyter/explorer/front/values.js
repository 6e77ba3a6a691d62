// Values of the past: of the selected op, in any of its executions, recomputed by the kernel.
import { h, plural } from "./dom.js";

const number = (value) => (Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : Number(value).toPrecision(6));
const SIZE = [320, 96];

/** A drawing of its own, in the colours of the page. */
function drawn(label, paint, [width, height] = SIZE) {
  const canvas = h("canvas", { class: "tx-drawn", width: 2 * width, height: 2 * height, style: `width: ${width}px; height: ${height}px`, role: "img", "aria-label": label });
  requestAnimationFrame(() => {
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    context.scale(2, 2);
    paint(context, { ink: style.getPropertyValue("--g0") || style.color, pale: style.getPropertyValue("--rule") || "#ccc", bad: style.getPropertyValue("--bad") || "#c00" }, width, height);
  });
  return h("figure", { class: "tx-figure" }, canvas, h("figcaption", { class: "tx-dim" }, label));
}

const histogram = (counts, least, greatest) => drawn(`how its elements are spread, ${number(least)} to ${number(greatest)}`, (context, colours, width, height) => {
  const most = Math.max(...counts);
  context.fillStyle = colours.ink;
  counts.forEach((count, bin) => {
    const tall = count ? Math.max(1, (count / most) * height) : 0;
    context.fillRect((bin * width) / counts.length, height - tall, width / counts.length - 1, tall);
  });
});

const plot = (points, least, greatest) => drawn("its elements in order", (context, colours, width, height) => {
  const span = greatest - least || 1;
  context.strokeStyle = colours.ink;
  context.beginPath();
  let down = false;
  points.forEach((value, index) => {
    const x = (index * (width - 1)) / Math.max(1, points.length - 1);
    if (value === null) { context.fillStyle = colours.bad; context.fillRect(x, 0, 1.5, height); down = false; return; }
    const y = height - 1 - ((value - least) / span) * (height - 2);
    if (down) context.lineTo(x, y); else context.moveTo(x, y);
    down = true;
  });
  context.stroke();
});

const picture = (rows) => {
  const side = Math.max(2, Math.min(8, Math.floor(SIZE[0] / rows[0].length), Math.floor(220 / rows.length)));
  return drawn("its (first) matrix: dark is small, red is not finite", (context, colours) => {
    rows.forEach((row, y) => row.forEach((shade, x) => {
      context.fillStyle = shade === null ? colours.bad : `rgb(${shade}, ${shade}, ${shade})`;
      context.fillRect(x * side, y * side, side, side);
    }));
  }, [rows[0].length * side, rows.length * side]);
};

export class Values {
  /** `fetch(number, op, step)` gives the text of a value, or null where nobody can give it any more. */
  constructor(snapshot, { fetch }) {
    Object.assign(this, { snapshot, fetch });
    this.root = h("div", { class: "tx-pad tx-values", "aria-live": "polite" });
    this.asked = 0;
  }

  async show({ flush: index, op: at }, step = null) {
    const flush = this.snapshot.flushes[index];
    const op = flush?.ops.find((each) => each.index === at);
    if (!op) return this.root.replaceChildren(h("p", { class: "tx-dim" }, "Choose an op, in the graph or by its line: here is its value then, to the bit, also if it was never stored."));
    const turn = ++this.asked;
    if (!this.shown || this.shown !== op) this.root.replaceChildren(h("p", { class: "tx-dim" }, "…"));
    this.shown = op;
    const text = await this.fetch(flush.number, op.index, step);
    if (turn !== this.asked) return undefined; // another one has been asked for
    const value = text === null ? { error: "The kernel that ran this cell has ended, or is busy." } : JSON.parse(text);
    return this.fill(op, value, (next) => this.show({ flush: index, op: at }, next));
  }

  fill(op, value, turn) {
    const title = h("p", { class: "tx-lead" }, h("code", {}, op.text.split(" = ")[0].split(":")[0]), ` ${op.name}`, op.variable && h("span", { class: "tx-dim" }, ` (${op.variable})`), value.type && h("span", { class: "tx-dim" }, ` ${value.type}`));
    if (value.error) return this.root.replaceChildren(title, h("p", { class: "tx-card" }, value.error));
    const rows = [["least", value.least], ["greatest", value.greatest], ["mean", value.mean], ["standard deviation", value.deviation]].filter(([, each]) => each !== undefined).map(([name, each]) => [name, number(each)]);
    rows.push(["zeros", value.zeros.toLocaleString("en")]);
    for (const [name, count] of [["NaN", value.nans], ["infinite", value.infinities]]) if (count) rows.push([name, count.toLocaleString("en")]);
    const scrub = value.steps > 1 && h("label", { class: "tx-scrub" }, "step ",
      h("input", { type: "range", min: 0, max: value.steps - 1, value: value.step, "aria-label": "which execution", oninput: (event) => turn(Number(event.target.value)) }),
      h("output", {}, ` ${value.step} of 0 to ${value.steps - 1}`));
    const held = document.activeElement?.matches?.("input[type=range]") && this.root.contains(document.activeElement);
    this.root.replaceChildren(...[title, scrub,
      h("div", { class: "tx-stats" }, rows.map(([name, each]) => h("span", { class: name === "NaN" || name === "infinite" ? "tx-odd" : "" }, h("span", { class: "tx-dim" }, `${name} `), each)), h("span", {}, h("span", { class: "tx-dim" }, "of "), plural(value.elements, "element"))),
      value.picture && picture(value.picture), value.plot && plot(value.plot, value.least, value.greatest),
      value.histogram && value.histogram.length > 1 && histogram(value.histogram, value.least, value.greatest),
      h("p", { class: "tx-dim" }, "first: ", h("code", {}, value.first.join(", ")), value.elements > value.first.length ? ", …" : "")].filter(Boolean));
    if (held) this.root.querySelector("input[type=range]")?.focus();
    return undefined;
  }
}
