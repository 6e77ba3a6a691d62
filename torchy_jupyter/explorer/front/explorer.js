// The explorer: three linked panes (cell, graph, kernel) over one snapshot. All linking happens here,
// in the browser: nothing is asked of the kernel but, where it has no `dot`, the layout engine.

const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

const duration = (seconds) => {
  if (!seconds) return "";
  for (const [unit, scale] of [["s", 1], ["ms", 1e-3], ["µs", 1e-6]])
    if (seconds >= scale) return `${(seconds / scale).toFixed(seconds / scale < 10 ? 1 : 0)} ${unit}`;
  return `${(seconds * 1e9).toFixed(0)} ns`;
};

const bytes = (count) => {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (count < 1024) return `${count.toFixed(unit === "B" || count >= 100 ? 0 : 1)} ${unit}`;
    count /= 1024;
  }
  return `${count.toFixed(1)} TiB`;
};

const times = (count) => (count > 1 ? ` ×${count}` : "");
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

const short = (id) => id.slice(0, 8); // of a kernel

/** Scroll a pane, and nothing around it, until a child of it is seen. */
function reveal(pane, child, sideways) {
  const outer = pane.getBoundingClientRect();
  const inner = child.getBoundingClientRect();
  if (inner.top < outer.top || inner.bottom > outer.bottom)
    pane.scrollTop += (inner.top + inner.bottom - outer.top - outer.bottom) / 2;
  if (!sideways) return;
  if (inner.left < outer.left || inner.right > outer.right)
    pane.scrollLeft += (inner.left + inner.right - outer.left - outer.right) / 2;
}

/** The bundled layout engine, fetched from the kernel once per page. */
function engine(invoke) {
  globalThis.__torchyGraphviz ??= (async () => {
    const [, [code]] = await invoke("engine", null, { signal: AbortSignal.timeout(60_000) });
    const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    const { Graphviz } = await import(url);
    return Graphviz.load();
  })();
  return globalThis.__torchyGraphviz;
}

class Explorer {
  constructor(model, root, invoke) {
    this.model = model;
    this.root = root;
    this.invoke = invoke;
    this.key = model.get("key");
    this.snapshot = model.get("snapshot");
    this.svgs = { ...model.get("svgs") };
    this.kernels = Object.fromEntries(this.snapshot.kernels.map((kernel) => [kernel.id, kernel]));
    this.traces = this.snapshot.traces;
    this.levels = [...new Set(this.snapshot.kernels.flatMap((kernel) => kernel.levels.map(([name]) => name)))];
    [this.level] = this.levels;
    this.selected = { trace: 0, op: null, group: null };
    this.zoom = null;
    this.build();
    const heaviest = this.traces.reduce((best, trace, index) => (trace.seconds > this.traces[best].seconds ? index : best), 0);
    this.show(heaviest);
  }

  // -- building, once

  build() {
    const { snapshot } = this;
    this.cellPane = h("div", { class: "torchy-scroll torchy-code", role: "list" });
    this.graphPane = h("div", { class: "torchy-scroll torchy-canvas" });
    this.kernelPane = h("div", { class: "torchy-scroll torchy-code" });
    this.kernelTitle = h("span", { class: "torchy-title" });
    this.tabs = h("span", { class: "torchy-tabs", role: "tablist" });
    this.detail = h("div", { class: "torchy-detail", "aria-live": "polite" });
    this.picker = h("select", { class: "torchy-picker", "aria-label": "trace", onchange: (event) => this.show(Number(event.target.value)) });
    this.traces.forEach((trace, index) => {
      const at = trace.place ? ` · ${trace.place}` : "";
      this.picker.append(h("option", { value: index }, `trace ${trace.number}${times(trace.count)}: ${trace.reason}${at}`));
    });
    for (const level of this.levels)
      this.tabs.append(h("button", { class: "torchy-tab", role: "tab", "data-level": level, onclick: () => { this.level = level; this.drawKernel(); } }, level));
    const zoomers = [["−", 1 / 1.25, "smaller"], ["+", 1.25, "larger"]].map(([sign, factor, name]) =>
      h("button", { class: "torchy-tab", title: name, "aria-label": name, onclick: () => this.scale((this.zoom ?? 1) * factor) }, sign));
    const fit = h("button", { class: "torchy-tab", title: "fit the width", onclick: () => this.scale(null) }, "fit");
    const pane = (name, head, body) => h("section", { class: `torchy-pane torchy-${name}` }, h("div", { class: "torchy-head" }, ...head), body);
    this.root.append(
      h("div", { class: "torchy-top" },
        h("span", { class: "torchy-brand" }, "Torchy"),
        h("span", { class: "torchy-where" }, snapshot.title),
        ...snapshot.facts.map(([value, what]) => h("span", { class: "torchy-fact" }, h("b", {}, value), ` ${what}`)),
        h("span", { class: "torchy-keys", title: "Click an op, a line or a group to see the other two. ↑ ↓ move through the ops, ← → through the traces, + − 0 zoom, Esc clears. Line colour: share of the time." }, "↑↓ ops  ←→ traces  ?")),
      h("div", { class: "torchy-panes" },
        pane("cell", [h("span", { class: "torchy-title" }, "cell"), h("span", { class: "torchy-hint" }, "colour = time")], this.cellPane),
        pane("graph", [this.picker, h("span", { class: "torchy-tabs" }, ...zoomers, fit)], this.graphPane),
        pane("kernel", [this.kernelTitle, this.tabs], this.kernelPane)),
      this.detail,
      this.buildFlushes(),
      ...(snapshot.notes.length ? [h("ul", { class: "torchy-notes" }, ...snapshot.notes.map((note) => h("li", {}, note)))] : []));
    this.buildCell();
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.graphPane.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.scale((this.zoom ?? this.fitted ?? 1) * (event.deltaY < 0 ? 1.15 : 1 / 1.15));
    }, { passive: false });
  }

  buildCell() {
    const most = Math.max(1e-12, ...this.snapshot.sources.flatMap((source) => source.lines.map((line) => line.seconds)));
    const lines = h("div", { class: "torchy-lines" }); // as wide as the longest line
    this.cellPane.append(lines);
    this.snapshot.sources.forEach((source, index) => {
      if (index || source.name !== this.snapshot.title) lines.append(h("div", { class: "torchy-file" }, source.name));
      for (const line of source.lines) {
        const share = line.seconds / most;
        const row = h("div", {
          class: `torchy-line${line.ops ? " torchy-live" : ""}`, role: "listitem", "data-file": source.file, "data-line": line.number,
          style: `--heat: ${line.seconds ? (0.06 + 0.3 * share).toFixed(3) : 0}`,
          title: line.ops ? `${plural(line.ops, "op")}${line.seconds ? `, ${duration(line.seconds)}` : ""}` : null,
          onclick: () => this.pickLine(source.file, line.number),
          onmouseenter: () => this.hover({ file: source.file, line: line.number }), onmouseleave: () => this.hover(null),
        },
          h("span", { class: "torchy-time" }, duration(line.seconds)),
          h("span", { class: "torchy-number" }, String(line.number)),
          h("span", { class: "torchy-text" }, line.text || " "));
        if (line.flushes.length)
          row.append(h("span", { class: "torchy-flag", title: `Flushed here: ${line.flushes.join("; ")}` }, `⚑ ${line.flushes[0]}${line.flushes.length > 1 ? ` +${line.flushes.length - 1}` : ""}`));
        lines.append(row);
      }
    });
  }

  buildFlushes() {
    const body = h("tbody");
    this.rows = this.traces.map((trace, index) => {
      const row = h("tr", { "data-trace": index, onclick: () => this.show(index) },
        h("td", { class: "torchy-count" }, `${trace.number}${times(trace.count)}`),
        h("td", { class: "torchy-reason" }, trace.reason),
        h("td", {}, trace.place || "—"),
        h("td", { class: "torchy-count" }, String(trace.op_count)),
        h("td", { class: "torchy-count" }, String(trace.groups.reduce((sum, group) => sum + group.count, 0))),
        h("td", {}, trace.tier),
        h("td", { class: "torchy-count" }, duration(trace.seconds)),
        h("td", { class: "torchy-count" }, trace.bytes_saved ? bytes(trace.bytes_saved) : "—"));
      body.append(row);
      return row;
    });
    const head = ["trace", "why it was flushed", "where", "ops", "groups", "tier", "time", "not allocated"];
    return h("details", { class: "torchy-flushes", open: this.traces.length <= 8 },
      h("summary", {}, `Why flushed: ${plural(this.traces.reduce((sum, trace) => sum + trace.count, 0), "flush").replace("flushs", "flushes")}`),
      h("div", { class: "torchy-tablebox" }, h("table", {}, h("thead", {}, h("tr", {}, ...head.map((name) => h("th", {}, name)))), body)));
  }

  // -- selecting

  get trace() { return this.traces[this.selected.trace]; }

  show(index) {
    if (!this.traces.length) {
      this.graphPane.replaceChildren(h("p", { class: "torchy-empty" }, "No op was deferred in this cell."));
      return;
    }
    this.selected = { trace: index, op: null, group: null };
    this.picker.value = String(index);
    this.rows.forEach((row, number) => row.classList.toggle("torchy-on", number === index));
    this.zoom = null;
    this.drawGraph();
    this.mark();
  }

  select(op, group = op?.group ?? null) {
    this.selected = { trace: this.selected.trace, op: op?.index ?? null, group };
    this.mark();
  }

  pickLine(file, line) {
    const on = (trace) => trace.ops.find((op) => op.file === file && op.line === line);
    let op = on(this.trace ?? { ops: [] });
    if (!op) {
      const index = this.traces.findIndex((trace) => on(trace));
      const flushed = this.traces.findIndex((trace) => trace.file === file && trace.line === line);
      if (index < 0) return flushed < 0 ? undefined : this.show(flushed);
      this.show(index);
      op = on(this.trace);
    }
    this.select(op);
  }

  move(step) {
    const { ops } = this.trace;
    const at = ops.findIndex((op) => op.index === this.selected.op);
    const next = at < 0 ? (step > 0 ? 0 : ops.length - 1) : Math.min(Math.max(at + step, 0), ops.length - 1);
    this.select(ops[next]);
  }

  onKey(event) {
    if (event.target.closest("select") || event.altKey || event.ctrlKey || event.metaKey || !this.traces.length) return;
    const last = this.traces.length - 1;
    const actions = {
      ArrowDown: () => this.move(1), ArrowUp: () => this.move(-1),
      ArrowRight: () => this.show(Math.min(this.selected.trace + 1, last)), ArrowLeft: () => this.show(Math.max(this.selected.trace - 1, 0)),
      "+": () => this.scale((this.zoom ?? this.fitted ?? 1) * 1.25), "-": () => this.scale((this.zoom ?? this.fitted ?? 1) / 1.25),
      0: () => this.scale(null), Escape: () => this.select(null),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }

  // -- drawing what is selected

  element(name) { return this.graphPane.querySelector(`[id="${this.key}-${this.selected.trace}-${name}"]`); }

  mark() {
    const { op: index, group: id } = this.selected;
    const op = this.trace.ops.find((candidate) => candidate.index === index);
    const group = this.trace.groups.find((candidate) => candidate.id === id);
    this.paint("torchy-on", op ? { ops: [op.index], groups: [id], file: op.file, line: op.line } : group ? { ops: group.ops, groups: [id] } : {});
    this.drawDetail(op, group);
    this.drawKernel();
    const node = op && (this.element(`op-${op.index}`) ?? this.element(`group-${id}`));
    if (node) reveal(this.graphPane, node, true);
    const row = op && this.cellPane.querySelector(".torchy-line.torchy-on");
    if (row) reveal(this.cellPane, row, false);
  }

  hover(what) {
    if (!what || !this.trace) return this.paint("torchy-over", {});
    const ops = this.trace.ops.filter((op) => op.file === what.file && op.line === what.line);
    this.paint("torchy-over", { ops: ops.map((op) => op.index), file: what.file, line: what.line });
  }

  paint(style, { ops = [], groups = [], file = null, line = null }) {
    this.root.querySelectorAll(`.torchy-line.${style}, .torchy-canvas .${style}`).forEach((node) => node.classList.remove(style));
    for (const index of ops) this.element(`op-${index}`)?.classList.add(style);
    for (const id of groups) if (id !== null) this.element(`group-${id}`)?.classList.add(style);
    const lines = file !== null ? [[file, line]] : this.trace.ops.filter((op) => ops.includes(op.index)).map((op) => [op.file, op.line]);
    for (const [name, number] of lines)
      this.cellPane.querySelectorAll(`.torchy-line[data-line="${number}"]`).forEach((row) => row.dataset.file === name && row.classList.add(style));
  }

  drawDetail(op, group) {
    const source = op && this.snapshot.sources.find((candidate) => candidate.file === op.file);
    const parts = [];
    if (op) {
      parts.push(h("code", {}, op.text));
      if (op.count > 1) parts.push(`stands for ${op.count} alike`);
      if (op.line !== null) parts.push(`${source ? source.name : op.file}, line ${op.line}`);
      if (op.dead) parts.push("dead: nobody could reach its result, so it never ran");
    }
    if (group) {
      const all = this.trace.ops.filter((each) => each.group === group.id).reduce((sum, each) => sum + each.count, 0) / group.count;
      const what = group.kind === "call" ? "a call: torch runs this op itself" : `fused with ${plural(all - (op ? 1 : 0), op ? "other op" : "op")} in ${group.kernel ? `kernel ${short(group.kernel)}` : `group ${group.id}`}`;
      parts.push(what + times(group.count), duration(group.seconds));
      if (group.refused) parts.push(`called op by op: ${group.refused}`);
      if (group.why_apart) parts.push(`not joined with the step before: ${group.why_apart}`);
    }
    if (!parts.length) {
      const { trace } = this;
      parts.push(`trace ${trace.number}${times(trace.count)}: ${plural(trace.op_count, "op")}, flushed${trace.place ? ` at ${trace.place}` : ""}: ${trace.reason}. Click an op, or press ↓.`);
    }
    this.detail.replaceChildren(...parts.filter(Boolean).map((part) => h("span", {}, part)));
  }

  drawKernel() {
    const { group: id, op: index } = this.selected;
    const groups = this.trace?.groups ?? [];
    const heaviest = [...groups].filter((group) => group.kernel).sort((a, b) => (b.seconds ?? 0) - (a.seconds ?? 0))[0];
    const group = id === null ? (index === null ? heaviest : null) : groups.find((candidate) => candidate.id === id);
    const kernel = group?.kernel ? this.kernels[group.kernel] : null;
    this.tabs.querySelectorAll("button").forEach((tab) => tab.setAttribute("aria-selected", tab.dataset.level === this.level));
    this.tabs.style.visibility = kernel ? "visible" : "hidden";
    this.kernelTitle.textContent = kernel ? `kernel ${short(kernel.id)}` : "kernel";
    this.kernelTitle.title = kernel ? `${kernel.id}${kernel.compile_seconds ? `, compiled in ${duration(kernel.compile_seconds)}` : ""}` : "";
    if (kernel) {
      const text = new Map(kernel.levels).get(this.level) ?? "Not compiled: its ops were interpreted.";
      this.kernelPane.replaceChildren(h("pre", {}, text));
    } else {
      const why = group?.kind === "call" ? "torch runs this op itself: there is no kernel to show."
        : group ? "This group was interpreted: torch ran its ops one by one."
        : index !== null ? "No kernel: this op did not run in a group." : groups.length ? "This trace has calls only." : "This trace was interpreted.";
      this.kernelPane.replaceChildren(h("p", { class: "torchy-empty" }, why));
    }
  }

  async drawGraph() {
    const { trace: index } = this.selected;
    if (!this.svgs[index]) this.drawList(); // until there is a layout, or for good
    if (!this.svgs[index] && this.invoke) {
      try {
        this.svgs[index] = (await engine(this.invoke)).layout(this.model.get("dots")[index], "svg", "dot");
        this.model.set("svgs", { ...this.model.get("svgs"), [index]: this.svgs[index] });
        this.model.save_changes();
      } catch (error) {
        console.warn("Torchy: no layout engine, showing a list instead.", error);
        globalThis.__torchyGraphviz = undefined;
      }
      if (this.selected.trace !== index) return;
    }
    if (this.svgs[index]) this.drawSvg(this.svgs[index]);
    this.mark();
  }

  drawSvg(text) {
    const parsed = new DOMParser().parseFromString(text.slice(text.indexOf("<svg")), "image/svg+xml");
    this.svg = document.importNode(parsed.documentElement, true);
    const size = this.svg.viewBox.baseVal;
    this.size = [size.width, size.height];
    this.graphPane.replaceChildren(this.svg);
    this.scale(this.zoom);
    for (const op of this.trace.ops) this.link(this.element(`op-${op.index}`), op, op.group);
    for (const group of this.trace.groups) this.link(this.element(`group-${group.id}`), null, group.id);
  }

  drawList() {
    this.svg = null;
    const list = h("div", { class: "torchy-list" });
    let group;
    for (const op of this.trace.ops) {
      if (op.group !== group && op.group !== null) {
        const step = this.trace.groups.find((candidate) => candidate.id === op.group);
        if (step?.kind === "fused") list.append(h("div", { class: "torchy-step", id: `${this.key}-${this.selected.trace}-group-${step.id}` }, `${step.kernel ? `kernel ${short(step.kernel)}` : `group ${step.id}`}${times(step.count)}`));
      }
      group = op.group;
      const row = h("div", { class: "torchy-item", id: `${this.key}-${this.selected.trace}-op-${op.index}` }, `${op.name}${times(op.count)}  ${op.results[0] ?? ""}`);
      list.append(row);
      this.link(row, op, op.group);
    }
    this.graphPane.replaceChildren(list);
  }

  link(node, op, group) {
    if (!node) return;
    node.querySelectorAll("title").forEach((title) => title.remove());
    node.addEventListener("click", (event) => { event.preventDefault(); event.stopPropagation(); this.select(op, group); });
    if (op) {
      node.addEventListener("mouseenter", () => this.paint("torchy-over", { ops: [op.index], groups: [group], file: op.file, line: op.line }));
      node.addEventListener("mouseleave", () => this.hover(null));
    }
  }

  scale(zoom) {
    this.zoom = zoom;
    if (!this.svg) return;
    const room = this.graphPane.clientWidth - 16;
    this.fitted = room > 0 ? Math.min(1.15, Math.max(0.55, room / (this.size[0] * (4 / 3)))) : 1;
    const factor = (zoom === null ? this.fitted : Math.min(4, Math.max(0.1, zoom))) * (4 / 3);
    this.svg.setAttribute("width", this.size[0] * factor);
    this.svg.setAttribute("height", this.size[1] * factor);
  }
}

/** Hide the static copy that stands above the widget, as long as the widget lives. */
function hideStatic(key) {
  const hidden = [];
  for (const copy of document.querySelectorAll(`.torchy-static-${key}`)) {
    const output = copy.closest(".jp-OutputArea-child, .output_area") ?? copy;
    hidden.push([output, output.style.display]);
    output.style.display = "none";
  }
  return () => hidden.forEach(([output, display]) => { output.style.display = display; });
}

function render({ model, el, experimental }) {
  // Jupyter's shortcuts (arrow keys move between cells) must not see the explorer's keys
  const root = h("div", { class: "torchy", tabindex: "0", "data-lm-suppress-shortcuts": "true", role: "region", "aria-label": "Torchy trace explorer" });
  el.append(root);
  const explorer = new Explorer(model, root, experimental?.invoke);
  const resized = new ResizeObserver(() => { if (explorer.zoom === null) explorer.scale(null); });
  resized.observe(explorer.graphPane);
  const restore = hideStatic(model.get("key"));
  return () => { resized.disconnect(); restore(); };
}

export default { render };
