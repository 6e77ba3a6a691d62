// The graph: a plan is a sequence, so it is set like a newspaper, top to bottom, in as many columns as show it largest.
// Lines between boxes are memory; inside a box nothing touches memory.
import { bytes, duration, h, hueNumber, times } from "./dom.js";

const WIDTH = 172, ROW = 16, HEAD = 18, TITLE = 34, GAP = 16, BETWEEN = 44, MARGIN = 14, LEGEND = 18;
const READABLE = 0.58; // of full size: below, boxes are colours and letters
const MOST_UNFOLDED = 160; // ops: more begin as groups

/** A kernel (with its ops, or folded), a call, or ops without a plan. */
function boxes(snapshot, folded) {
  const found = [];
  snapshot.flushes.forEach((flush, index) => {
    const ops = new Map(flush.ops.map((op) => [op.index, op]));
    const loose = flush.ops.filter((op) => op.group === null && !op.dead);
    const dead = flush.ops.filter((op) => op.dead);
    const steps = flush.groups.map((group) => ({ group, ops: group.ops.map((op) => ops.get(op)) }));
    if (loose.length) steps.push({ group: null, ops: loose });
    if (dead.length) steps.push({ group: null, ops: dead });
    steps.forEach(({ group, ops: members }, position) => {
      const kernel = group?.kind === "fused";
      const rows = !kernel && group ? 0 : folded ? Math.min(1, members.length) : members.length;
      found.push({
        flush: index, title: position === 0 ? flush : null, group, ops: members, rows, folded: folded && members.length > 1,
        height: HEAD + rows * ROW + (rows ? 4 : 0),
      });
    });
  });
  return found;
}

/** Place boxes in columns; the number of columns that shows them largest in a pane of this shape. */
function lay(all, width, height) {
  const tall = (box) => box.height + GAP + (box.title ? TITLE : 0);
  const whole = all.reduce((sum, box) => sum + tall(box), 0);
  let best = null;
  for (let columns = 1; columns <= Math.min(all.length, 24); columns++) {
    const most = Math.max(whole / columns, ...all.map(tall));
    let x = MARGIN, y = MARGIN, low = 0;
    const places = [];
    for (const box of all) {
      if (y > MARGIN && y + tall(box) > most + MARGIN + ROW) { x += WIDTH + BETWEEN; y = MARGIN; }
      if (box.title) y += TITLE;
      places.push([x, y]);
      y += box.height + GAP;
      low = Math.max(low, y);
    }
    const size = [x + WIDTH + MARGIN, low];
    const scale = Math.min(width / size[0], height / size[1]);
    if (!best || scale > best.scale) best = { scale, places, size };
  }
  all.forEach((box, index) => { [box.x, box.y] = best.places[index]; });
  return best.size;
}

export class Graph {
  constructor(snapshot, { select, over }) {
    this.snapshot = snapshot;
    this.tell = { select, over };
    const count = snapshot.flushes.reduce((sum, flush) => sum + flush.ops.length, 0);
    this.folded = count > MOST_UNFOLDED;
    this.view = { x: 0, y: 0, k: 1 };
    this.fitted = true;
    this.marked = { on: null, over: null, found: "" };
    this.canvas = h("canvas", { tabindex: "0", role: "application", "aria-roledescription": "graph", "aria-label": `graph of ${count} ops; arrow keys move through them, the line below tells each` });
    this.root = h("div", { class: "tx-graph" }, this.canvas,
      h("div", { class: "tx-legend" }, "● written to memory   ○ never stored   lines between boxes: through memory"));
    this.search = h("input", { type: "search", placeholder: "search ops", "aria-label": "search ops", oninput: () => this.find(false), onkeydown: (event) => { if (event.key === "Enter") this.find(true); } });
    this.fold = h("span", { class: "tx-switch", role: "group", "aria-label": "detail" }, ["groups", "ops"].map((name) =>
      h("button", { class: "tx-tool", "aria-pressed": String((name === "groups") === this.folded), onclick: () => this.refold(name === "groups") }, name)));
    const tool = (sign, name, act) => h("button", { class: "tx-tool", title: name, "aria-label": name, onclick: act }, sign);
    this.tools = h("span", { class: "tx-tools" }, this.fold, this.search,
      tool("−", "smaller", () => this.zoom(1 / 1.25)), tool("+", "larger", () => this.zoom(1.25)), tool("fit", "fit all", () => this.fit()));
    this.listen();
    this.resized = new ResizeObserver(() => (this.fitted ? this.fit() : this.draw()));
    this.resized.observe(this.canvas);
    this.themed = new MutationObserver(() => this.recolour());
    this.themed.observe(document.body, { attributeFilter: ["data-jp-theme-light", "class"] });
    this.build();
  }

  build() {
    this.boxes = boxes(this.snapshot, this.folded);
    this.at = new Map(); // "flush:op" -> its box and row
    for (const box of this.boxes)
      box.ops.forEach((op, row) => this.at.set(`${box.flush}:${op.index}`, { box, row: box.rows > 1 || !box.folded ? row : 0 }));
    this.edges = new Map();
    for (const box of this.boxes)
      for (const op of box.ops)
        for (const reader of op.feeds) {
          const to = this.at.get(`${box.flush}:${reader}`)?.box;
          if (!to || to === box) continue;
          const key = `${this.boxes.indexOf(box)}:${this.boxes.indexOf(to)}`;
          const edge = this.edges.get(key) ?? { from: box, to, bytes: 0, seen: new Set() };
          if (!edge.seen.has(op.index)) { edge.seen.add(op.index); edge.bytes += op.bytes; }
          this.edges.set(key, edge);
        }
    this.laid = null;
  }

  recolour() {
    this.palette = null;
    this.draw();
  }

  refold(folded) {
    this.folded = folded;
    this.fold.childNodes.forEach((button, index) => button.setAttribute("aria-pressed", String((index === 0) === folded)));
    this.build();
    this.fit();
  }

  // -- what is seen

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height || !this.boxes.length) return;
    const free = height - LEGEND;
    this.size = lay(this.boxes, width, free);
    this.laid = true;
    const k = Math.min(1.15, width / this.size[0], free / this.size[1]);
    this.view = { k, x: (width - this.size[0] * k) / 2, y: Math.max(0, (free - this.size[1] * k) / 2) };
    this.fitted = true;
    this.draw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const { view } = this;
    const k = Math.min(4, Math.max(0.02, view.k * factor));
    view.x = x - ((x - view.x) * k) / view.k;
    view.y = y - ((y - view.y) * k) / view.k;
    view.k = k;
    this.fitted = false;
    this.draw();
  }

  /** Move as little as shows what is selected. */
  show({ flush, op, group }) {
    this.marked.on = { flush, op, group };
    const place = op === null ? { box: this.boxes.find((box) => box.flush === flush && (group === null || box.group?.id === group)) } : this.at.get(`${flush}:${op}`);
    if (place?.box && this.laid && !this.fitted) {
      const { view, canvas } = this;
      const x = place.box.x * view.k + view.x, y = (place.box.y + HEAD + (place.row ?? 0) * ROW) * view.k + view.y;
      if (x < 0 || x + WIDTH * view.k > canvas.clientWidth) view.x += canvas.clientWidth / 2 - x - (WIDTH / 2) * view.k;
      if (y < 20 || y > canvas.clientHeight - 20) view.y += canvas.clientHeight / 2 - y;
    }
    this.draw();
  }

  hover(what) {
    this.marked.over = what;
    this.draw();
  }

  find(next) {
    const text = this.search.value.trim().toLowerCase();
    this.marked.found = text;
    if (text) {
      const all = this.boxes.flatMap((box) => box.ops.map((op) => [box, op])).filter(([, op]) => this.matches(op));
      const now = all.findIndex(([box, op]) => box.flush === this.marked.on?.flush && op.index === this.marked.on?.op);
      const [box, op] = all[next ? (now + 1) % all.length : Math.max(0, now)] ?? [];
      if (op) this.tell.select(box.flush, op.index, op.group);
    }
    this.draw();
  }

  matches(op) {
    const { found } = this.marked;
    return found && (op.name.toLowerCase().includes(found) || op.variable.toLowerCase().includes(found));
  }

  // -- pointers and wheels

  hit(event) {
    const x = (event.offsetX - this.view.x) / this.view.k, y = (event.offsetY - this.view.y) / this.view.k;
    const box = this.boxes.find((each) => x >= each.x && x <= each.x + WIDTH && y >= each.y && y <= each.y + each.height);
    if (!box) return null;
    const row = Math.floor((y - box.y - HEAD) / ROW);
    const single = box.rows === 0 || box.folded;
    return { box, op: single ? (box.folded ? null : box.ops[0]) : row >= 0 ? box.ops[Math.min(row, box.ops.length - 1)] : null };
  }

  listen() {
    const { canvas } = this;
    let drag = null;
    canvas.addEventListener("pointercancel", () => { drag = null; });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      drag = { x: event.clientX, y: event.clientY, moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!drag) {
        const found = this.hit(event);
        canvas.style.cursor = found ? "pointer" : "grab";
        this.tell.over(found && { flush: found.box.flush, ops: found.op ? [found.op] : found.box.ops });
        return;
      }
      const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
      if (!drag.moved && Math.hypot(dx, dy) < 4) return;
      Object.assign(drag, { x: event.clientX, y: event.clientY, moved: true });
      this.view.x += dx;
      this.view.y += dy;
      this.fitted = false;
      this.draw();
    });
    canvas.addEventListener("pointerup", (event) => {
      const found = drag && !drag.moved ? this.hit(event) : null;
      drag = null;
      if (found) this.tell.select(found.box.flush, found.op?.index ?? null, found.box.group?.id ?? null);
    });
    canvas.addEventListener("pointerleave", () => this.tell.over(null));
    canvas.addEventListener("dblclick", (event) => this.zoom(1.8, event.offsetX, event.offsetY));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas && !this.root.getRootNode().activeElement?.isSameNode(canvas)) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.offsetX, event.offsetY);
    }, { passive: false });
  }

  // -- drawing

  draw() {
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.paint(); });
  }

  /** The theme's, looked up now and then: it may change. */
  colours() {
    const now = performance.now();
    if (this.palette && now - this.palette.since < 400) return this.palette;
    const style = getComputedStyle(this.root);
    const of = (name) => style.getPropertyValue(name).trim();
    this.palette = { since: now, bg: of("--bg"), ink: of("--ink"), soft: of("--soft"), rule: of("--rule"), sel: of("--sel"), selSoft: of("--sel-soft"), warn: of("--warn"),
      call: of("--call"), callSoft: of("--call-soft"), sunken: of("--sunken"), heat: of("--heat"), on: of("--on"), hues: [0, 1, 2, 3, 4].map((n) => of(`--g${n}`)), mono: of("--mono"), sans: of("--sans") };
    return this.palette;
  }

  paint() {
    const { canvas, view } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    if (!this.laid) return this.fit();
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    const colours = this.colours();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.translate(view.x, view.y);
    pen.scale(view.k, view.k);
    const seen = (box) => box.x * view.k + view.x < width && (box.x + WIDTH) * view.k + view.x > 0 && (box.y - TITLE) * view.k + view.y < height && (box.y + box.height) * view.k + view.y > 0;
    for (const edge of this.edges.values()) if (seen(edge.from) || seen(edge.to)) this.line(pen, colours, edge);
    const slowest = Math.max(1e-12, ...this.boxes.map((box) => box.group?.seconds ?? 0));
    for (const box of this.boxes) if (seen(box)) this.box(pen, colours, box, slowest);
  }

  line(pen, colours, { from, to, bytes: size }) {
    pen.strokeStyle = colours.rule;
    pen.lineWidth = Math.min(7, 1 + Math.log2(1 + size / 4096) / 2.5);
    pen.beginPath();
    const below = from.x === to.x && to.y > from.y && to.y - from.y - from.height < GAP + TITLE + 2;
    if (below) {
      pen.moveTo(from.x + 16, from.y + from.height);
      pen.lineTo(to.x + 16, to.y);
    } else {
      const [x1, y1, x2, y2] = from.x <= to.x && from.x + WIDTH < to.x ? [from.x + WIDTH, from.y + from.height / 2, to.x, to.y + HEAD / 2]
        : [from.x, from.y + from.height / 2, to.x, to.y + HEAD / 2];
      const bend = from.x === to.x ? -18 : Math.max(18, (x2 - x1) / 2);
      pen.moveTo(x1, y1);
      pen.bezierCurveTo(x1 + bend, y1, from.x === to.x ? x2 - 18 : x2 - bend, y2, x2, y2);
    }
    pen.stroke();
    if (below && size && this.view.k >= READABLE) {
      pen.fillStyle = colours.soft;
      pen.font = `9.5px ${colours.sans}`;
      pen.fillText(bytes(size), from.x + 24, from.y + from.height + 11);
    }
  }

  box(pen, colours, box, slowest) {
    const { group, title } = box;
    const readable = this.view.k >= READABLE;
    const kernel = group?.kind === "fused";
    const dead = box.ops.every((op) => op.dead);
    const colour = kernel ? colours.hues[hueNumber(group.letter)] : colours.call;
    const text = (said, x, y, { font = "sans", size = 11, weight = "", fill = colours.ink, right = false, most = WIDTH - 16 } = {}) => {
      pen.font = `${weight} ${size}px ${colours[font]}`;
      pen.fillStyle = fill;
      let shown = said;
      while (shown.length > 2 && pen.measureText(shown).width > most) shown = `${shown.slice(0, shown.endsWith("…") ? -2 : -1)}…`;
      pen.textAlign = right ? "right" : "left";
      pen.fillText(shown, x, y);
      pen.textAlign = "left";
      return pen.measureText(shown).width;
    };
    if (title && readable) {
      const wide = text(`⚑ flush ${box.flush + 1}${times(title.count)}`, box.x, box.y - 19, { weight: "600", fill: colours.warn });
      text(duration(title.seconds), box.x + wide + 6, box.y - 19, { fill: colours.soft });
      text(title.reason.replaceAll("`", ""), box.x, box.y - 6, { size: 10, fill: colours.soft, most: WIDTH + 10 });
    } else if (title) {
      pen.fillStyle = colours.warn;
      pen.fillRect(box.x, box.y - 8, 26, 3);
    }
    const { on, over } = this.marked;
    const chosen = on && on.flush === box.flush && group && on.group === group.id;
    pen.beginPath();
    pen.roundRect(box.x, box.y, WIDTH, box.height, 4);
    pen.fillStyle = kernel ? colours.bg : colours.callSoft;
    pen.fill();
    if (kernel) { pen.save(); pen.globalAlpha = readable ? 0.09 : 0.4; pen.fillStyle = colour; pen.fill(); pen.restore(); }
    pen.lineWidth = chosen ? 2 : 1;
    pen.strokeStyle = chosen ? colours.sel : colour;
    pen.setLineDash(dead || (kernel && !group.compiled) ? [4, 3] : []);
    pen.stroke();
    pen.setLineDash([]);
    if (kernel) {
      pen.fillStyle = colour;
      pen.fillRect(box.x, box.y + 2, 3, box.height - 4);
    }
    if (!readable) {
      text(kernel ? group.letter : group ? "f" : "", box.x + WIDTH / 2 - 6, box.y + Math.min(box.height / 2 + 8, 24), { size: 20, weight: "600", fill: colour });
      return;
    }
    if (group) {
      const took = duration(group.seconds);
      const heat = group.seconds / slowest;
      pen.font = `11px ${colours.sans}`;
      const wide = pen.measureText(took).width;
      pen.fillStyle = `rgba(${colours.heat}, ${(0.06 + 0.5 * heat).toFixed(3)})`;
      pen.fillRect(box.x + WIDTH - wide - 12, box.y + 3, wide + 8, 13);
      text(took, box.x + WIDTH - 8, box.y + 13, { right: true });
      if (kernel) {
        text(group.letter, box.x + 9, box.y + 13, { weight: "600", fill: colour });
        text(`${group.compiled ? "kernel" : "one by one"}${times(group.count)}`, box.x + 26, box.y + 13, { size: 10.5, fill: colours.soft });
      } else {
        const [op] = box.ops;
        const wideName = text(`f ${op.name}${times(op.count)}`, box.x + 8, box.y + 13, { font: "mono", most: 92 });
        text(op.variable, box.x + 14 + wideName, box.y + 13, { size: 10, fill: colours.soft, most: Math.max(0, WIDTH - wide - wideName - 34) });
      }
    } else text(dead ? "never run" : "ops", box.x + 8, box.y + 13, { size: 10.5, fill: colours.soft });
    if (box.folded && box.ops.some((op) => this.matches(op))) { pen.strokeStyle = colours.warn; pen.lineWidth = 2; pen.strokeRect(box.x, box.y, WIDTH, box.height); }
    if (box.folded) return text(`${box.ops.reduce((sum, op) => sum + op.count, 0)} ops: ${[...new Set(box.ops.map((op) => op.name))].join(" ")}`, box.x + 9, box.y + HEAD + 12, { font: "mono", size: 10.5 });
    box.ops.slice(0, box.rows).forEach((op, row) => {
      const y = box.y + HEAD + row * ROW;
      const selected = on && on.flush === box.flush && on.op === op.index;
      const lit = over && over.flush === box.flush && over.ops.includes(op);
      if (selected || lit || this.matches(op)) {
        pen.fillStyle = selected ? colours.selSoft : colours.sunken;
        pen.fillRect(box.x + 4, y, WIDTH - 8, ROW);
        if (selected || this.matches(op)) { pen.strokeStyle = selected ? colours.sel : colours.warn; pen.lineWidth = 1; pen.strokeRect(box.x + 4.5, y + 0.5, WIDTH - 9, ROW - 1); }
      }
      const wide = text(`${op.name}${times(op.count)}`, box.x + 9, y + 12, { font: "mono", fill: op.dead ? colours.soft : colours.ink, most: 100 });
      if (op.dead) { pen.fillStyle = colours.soft; pen.fillRect(box.x + 9, y + 8, wide, 1); }
      text(op.variable, box.x + WIDTH - 18, y + 12, { size: 10, fill: colours.soft, right: true, most: Math.max(0, WIDTH - wide - 36) });
      pen.beginPath();
      pen.arc(box.x + WIDTH - 10, y + ROW / 2, 2.6, 0, 7);
      pen.strokeStyle = pen.fillStyle = colour;
      pen.lineWidth = 1;
      if (op.dead) text("✕", box.x + WIDTH - 13, y + 12, { size: 9, fill: colours.soft });
      else if (op.stored) pen.fill();
      else pen.stroke();
    });
  }

  close() {
    this.resized.disconnect();
    this.themed.disconnect();
    if (this.frame) cancelAnimationFrame(this.frame);
  }
}
