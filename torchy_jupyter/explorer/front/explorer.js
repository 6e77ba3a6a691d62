// The explorer: the cell is the index; there is one selection, and one lens on it. All linking happens here, in the
// browser: of the kernel only what is large and rarely wanted is asked for.
import { Cell } from "./cell.js";
import { copy, duration, h, hue, times } from "./dom.js";
import { Graph } from "./graph.js";
import { eager, Kernel, overview } from "./lenses.js";
import { timeline } from "./timeline.js";
import { Values } from "./values.js";

const LENSES = ["Overview", "Graph", "Kernel", "Eager"];
const KEYS = [["Enter", "on the first line: unfold, fold"], ["↑ ↓", "previous, next op"], ["← →", "previous, next flush"], ["1 … 5", "the views"], ["/", "search ops"], ["+ − 0", "larger, smaller, fit"], ["Esc", "clear, then fold"]];
const SIGNS = [["A", "a kernel: several ops in one pass over memory"], ["f", "a call: torch runs the op itself"], ["~", "ran as eager: not recorded"]];

/** Text that was deflated. */
export async function inflate(data) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).text();
}

export class Explorer {
  /**
   * `state`: `summary` (the parts of the first line), `tags`, `parts` (shares of the time, for the strip) and `unfolded`.
   * `load()` gives the snapshot, `failed()` is told that it does not; `fetch(kernel, level)` a kernel's text, `value(flush, op, step)` that of a value,
   * `issue()` the text for a bug report.
   */
  constructor(root, state, { load, failed, fetch, value, issue }) {
    Object.assign(this, { root, state, load, failed, fetch, value, issue });
    this.selected = { flush: 0, op: null, group: null, now: null }; // now: what ran as eager, by its number
    this.lens = "Overview";
    this.build();
    if (state.unfolded) this.unfold();
  }

  build() {
    const { state } = this;
    const [first, ...rest] = state.summary;
    this.fold = h("button", { class: "tx-fold", "aria-expanded": "false", onclick: () => this.toggle() },
      h("span", { class: "tx-chevron", "aria-hidden": "true" }, "›"), h("span", {}, bold(first)), rest.map((part) => h("span", {}, bold(part))),
      state.tags.map(([kind, text]) => h("span", { class: `tx-tag tx-${kind}` }, text)));
    const strip = h("span", { class: "tx-strip", "aria-hidden": "true" }, state.parts.map(([kind, share]) => h("i", { class: `tx-${kind}`, style: `width: ${(100 * share).toFixed(1)}%` })));
    this.more = h("button", { class: "tx-more", "aria-label": "more", "aria-haspopup": "menu", onclick: () => this.menu() }, "⋯");
    this.body = h("div", { class: "tx-body", hidden: true });
    this.root.append(h("div", { class: "tx-sum" }, this.fold, strip, this.more), this.body);
    this.root.addEventListener("keydown", (event) => this.key(event));
  }

  get open() { return !this.body.hidden; }

  toggle() { return this.open ? this.close() : this.unfold(); }

  /** For good: the widget is gone. */
  end() {
    this.ended = true;
    this.graph?.close();
    this.resized?.disconnect();
  }

  close() {
    this.body.hidden = true;
    this.root.dataset.open = "0";
    this.fold.setAttribute("aria-expanded", "false");
  }

  async unfold() {
    this.root.dataset.open = "1";
    this.fold.setAttribute("aria-expanded", "true");
    this.body.hidden = false;
    if (this.snapshot) return undefined;
    return (this.loading ??= this.read());
  }

  async read() {
    this.body.replaceChildren(h("p", { class: "tx-pad tx-dim" }, "…"));
    try {
      this.snapshot = await this.load();
    } catch (error) {
      this.loading = null;
      this.failed();
      this.body.replaceChildren(h("p", { class: "tx-pad tx-dim" }, `What this cell did cannot be shown any more (${error.message}). The copy beside this has it.`));
      return;
    }
    if (!this.ended) this.fill();
  }

  fill() {
    const { snapshot } = this;
    const over = (what) => this.over(what);
    const line = (file, number) => this.pickLine(file, number);
    const pickNow = (now) => this.select({ ...this.selected, op: null, group: null, now });
    const select = (flush, op, group) => this.select({ flush, op, group, now: null }, this.lens === "Overview" ? "Graph" : this.lens);
    this.order = snapshot.flushes.flatMap((flush, index) => flush.ops.map((op) => ({ flush: index, op: op.index, group: op.group, now: null })));
    this.cell = new Cell(snapshot, { pick: line, flush: (index) => select(index, null, null), over });
    this.graph = new Graph(snapshot, { select, over });
    this.kernel = new Kernel(snapshot, { select, fetch: this.fetch });
    this.values = new Values(snapshot, { fetch: this.value });
    this.lenses = [...LENSES, ...(snapshot.keeps ? ["Values"] : [])];
    this.panels = {
      Cell: h("div", { class: "tx-solo" }), Overview: overview(snapshot, { select, pickNow, over, line }), Graph: this.graph.root, Kernel: this.kernel.root,
      Eager: eager(snapshot, { select }), Values: this.values.root,
    };
    this.tabs = h("div", { class: "tx-tabs" },
      h("div", { class: "tx-tablist", role: "tablist", "aria-label": "views" }, ["Cell", ...this.lenses].map((name) =>
        h("button", { role: "tab", "data-lens": name, class: name === "Cell" ? "tx-narrow" : "", onclick: () => this.look(name) }, name === "Eager" && !snapshot.account.measured ? "Eager ~" : name))),
      h("span", { class: "tx-space" }), this.graph.tools);
    this.panel = h("div", { class: "tx-panel", role: "tabpanel" });
    this.detail = h("div", { class: "tx-detail", "aria-live": "polite" });
    const lines = snapshot.sources.reduce((sum, source) => sum + source.lines.reduce((all, each) => all + 1 + each.notes.length, 1), 0);
    const height = Math.min(430, Math.max(226, 20 * (lines + 2) + 24));
    this.body.replaceChildren(
      timeline(snapshot, { pick: (flush, group) => select(flush, null, group), pickNow }),
      h("div", { class: "tx-main", style: `--h: ${height}px` }, this.cell.root, h("div", { class: "tx-lens" }, this.tabs, this.panel)),
      h("div", { class: "tx-sel" }, this.detail, h("span", { class: "tx-keys", "aria-hidden": "true" }, [["↑", "↓", " ops"], ["1", "–", "4", " views"], ["/", " search"], ["?", " keys"]].map((keys) => h("span", {}, keys.map((text) => (text.length === 1 && text !== "–" ? h("kbd", {}, text) : text)))))));
    const hottest = snapshot.flushes.flatMap((flush, index) => flush.groups.map((group) => ({ flush: index, group: group.id, op: null, seconds: group.seconds }))).sort((a, b) => b.seconds - a.seconds)[0];
    this.look("Overview");
    if (hottest) this.selected = { flush: hottest.flush, op: null, group: null, now: null };
    this.resized = new ResizeObserver(() => { if (this.lens === "Cell" && this.root.clientWidth > 720) this.look("Overview"); });
    this.resized.observe(this.root);
    this.describe();
  }

  look(name) {
    this.lens = name;
    this.tabs.querySelectorAll("[role=tab]").forEach((tab) => {
      tab.setAttribute("aria-selected", String(tab.dataset.lens === name));
      tab.tabIndex = tab.dataset.lens === name ? 0 : -1;
    });
    this.graph.tools.hidden = name !== "Graph";
    if (name === "Cell") this.panels.Cell.append(this.cell.root);
    else if (this.cell.root.parentNode === this.panels.Cell) this.body.querySelector(".tx-main").prepend(this.cell.root);
    this.keepFocus(() => {
      this.panel.replaceChildren(this.panels[name]);
      this.panel.setAttribute("aria-label", name);
      this.mark();
    });
  }

  /** Do what may take away what has the focus: keys shall still come here. */
  keepFocus(act) {
    const inside = this.root.contains(document.activeElement);
    act();
    if (inside && !this.root.contains(document.activeElement)) this.root.focus({ preventScroll: true });
  }

  // -- selecting

  select(selected, lens = this.lens) {
    this.selected = selected;
    if (lens !== this.lens) this.look(lens);
    else this.keepFocus(() => this.mark());
    this.describe();
  }

  /** A line stands for all its ops; what it shows is the heaviest of them. */
  pickLine(file, number) {
    const here = this.order.filter(({ flush, op }) => { const found = this.op(flush, op); return found.file === file && found.line === number; });
    const heaviest = here.sort((a, b) => this.op(b.flush, b.op).seconds - this.op(a.flush, a.op).seconds)[0];
    if (heaviest) return this.select(heaviest, this.lens === "Overview" ? "Graph" : this.lens);
    const now = this.snapshot.ran_now.findIndex((each) => each.file === file && each.line === number);
    if (now >= 0) return this.select({ ...this.selected, op: null, group: null, now });
    const flush = this.snapshot.flushes.findIndex((each) => each.file === file && each.line === number);
    return flush < 0 ? undefined : this.select({ flush, op: null, group: null, now: null });
  }

  op(flush, index) { return this.snapshot.flushes[flush]?.ops.find((op) => op.index === index); }

  group(flush, id) { return this.snapshot.flushes[flush]?.groups.find((group) => group.id === id); }

  move(step) {
    const now = this.order.findIndex(({ flush, op }) => flush === this.selected.flush && op === this.selected.op);
    const next = now < 0 ? this.order.findIndex(({ flush }) => flush === this.selected.flush) : Math.min(this.order.length - 1, Math.max(0, now + step));
    if (next >= 0) this.select(this.order[next]);
  }

  turn(step) {
    const flush = Math.min(this.snapshot.flushes.length - 1, Math.max(0, this.selected.flush + step));
    this.select({ flush, op: null, group: null, now: null });
  }

  // -- showing what is selected

  places({ flush, op, group, now }) {
    const ran = now === null ? null : this.snapshot.ran_now[now];
    if (ran) return ran.line === null ? [] : [[ran.file, ran.line]];
    const found = this.op(flush, op);
    if (found) return found.line === null ? [] : [[found.file, found.line]];
    const of = group === null ? null : this.group(flush, group);
    return of ? of.ops.map((index) => this.op(flush, index)).filter((each) => each.line !== null).map((each) => [each.file, each.line]) : [];
  }

  mark(places = this.places(this.selected)) {
    this.cell.paint("tx-on", places);
    if (this.lens === "Graph") this.graph.show(this.selected);
    if (this.lens === "Kernel") this.kernel.show(this.selected);
    if (this.lens === "Values") this.values.show(this.selected);
    const { flush, op, group, now } = this.selected;
    this.body.querySelectorAll(".tx-bar.tx-on, .tx-row.tx-on, tr.tx-on").forEach((node) => node.classList.remove("tx-on"));
    if (group !== null) this.body.querySelectorAll(`[data-flush="${flush}"][data-group="${group}"]`).forEach((node) => node.classList.add("tx-on"));
    if (now !== null) this.body.querySelectorAll(`[data-now="${now}"]`).forEach((node) => node.classList.add("tx-on"));
    if (op !== null) this.body.querySelectorAll(`tr[data-flush="${flush}"][data-op="${op}"]`).forEach((node) => node.classList.add("tx-on"));
  }

  over(what) {
    let places = [], lit = null;
    if (what?.file) {
      places = [[what.file, what.line]];
      this.snapshot.flushes.forEach((flush, index) => {
        const ops = flush.ops.filter((op) => op.file === what.file && op.line === what.line);
        if (ops.length && !lit) lit = { flush: index, ops };
      });
    } else if (what) {
      const ops = what.ops ?? this.group(what.flush, what.group).ops.map((index) => this.op(what.flush, index));
      places = ops.filter((op) => op.line !== null).map((op) => [op.file, op.line]);
      lit = { flush: what.flush, ops };
    }
    this.cell.paint("tx-over", places);
    if (this.lens === "Graph") this.graph.hover(lit);
  }

  describe() {
    const { flush: index, op: at, group: id, now } = this.selected;
    const ran = now === null ? null : this.snapshot.ran_now[now];
    if (ran) return this.detail.replaceChildren(h("span", {}, h("b", {}, ran.short), ` ran as eager${times(ran.count)}`), ran.line === null ? "" : h("span", {}, `line ${ran.line}`), h("span", {}, duration(ran.seconds)), h("span", {}, ran.why));
    const flush = this.snapshot.flushes[index];
    if (!flush) return this.detail.replaceChildren(h("span", {}, "Nothing was recorded."));
    const op = this.op(index, at), group = this.group(index, op ? op.group : id);
    const trail = [`flush ${index + 1}${times(flush.count)}`, group && (group.letter ? `kernel ${group.letter}` : "call"), op && op.name].filter(Boolean);
    const parts = [h("span", {}, trail.slice(0, -1).map((part) => `${part} › `), h("b", {}, trail[trail.length - 1]))];
    if (op) {
      parts.push(h("code", { title: op.text }, op.text.split(" = ")[0]), op.line !== null && h("span", {}, `line ${op.line}`));
      if (op.dead) parts.push(h("span", {}, "never run: nobody could reach its result"));
      else if (group?.letter && group.ops.length > 1) parts.push(h("span", {}, `~${duration(op.seconds)} of the kernel's ${duration(group.seconds)}${op.stored ? "" : " · never stored"}`));
      else if (op.seconds) parts.push(h("span", {}, duration(op.seconds)));
      if (op.count > 1) parts.push(h("span", {}, `stands for ${op.count} alike`));
    } else if (group) parts.push(h("span", {}, duration(group.seconds)));
    else parts.push(h("span", {}, `${flush.op_count.toLocaleString("en")} ops, ${duration(flush.seconds)}: ${flush.reason.replaceAll("`", "")}`), h("span", { class: "tx-dim" }, "Click a line, a bar or an op: everything follows it."));
    if (group?.why_apart) parts.push(h("span", {}, `apart because ${group.why_apart}`));
    if (group?.refused) parts.push(h("span", {}, `ran one by one: ${group.refused}`));
    this.detail.replaceChildren(...parts.filter(Boolean));
    return undefined;
  }

  // -- keys, and what is behind the dots

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const typing = event.target.closest("input");
    if (typing && event.key !== "Escape") return event.stopPropagation();
    const menu = event.target.closest("[role=menu]");
    if (menu && event.key.startsWith("Arrow")) return this.beside(event, event.key === "ArrowDown" || event.key === "ArrowRight" ? 1 : -1);
    const scrolls = event.target.matches(".tx-scroll") && /^(Arrow(Up|Down)|Page|Home|End)/.test(event.key);
    if (scrolls) return event.stopPropagation(); // its own
    const actions = this.open && this.snapshot ? {
      ArrowDown: () => this.move(1), ArrowUp: () => this.move(-1), ArrowRight: () => this.beside(event, 1), ArrowLeft: () => this.beside(event, -1),
      "/": () => { this.look("Graph"); this.graph.search.focus(); }, "?": () => this.help(),
      ...(this.lens === "Graph" ? { "+": () => this.graph.zoom(1.25), "-": () => this.graph.zoom(1 / 1.25), 0: () => this.graph.fit() } : {}), Escape: () => this.escape(typing),
      ...Object.fromEntries(this.lenses.map((name, index) => [index + 1, () => this.look(name)])),
    } : {};
    if (!actions[event.key]) return undefined;
    event.preventDefault();
    event.stopPropagation();
    return actions[event.key]();
  }

  /** The neighbour of what has the focus: a tab, a level; else of the flush. */
  beside(event, step) {
    const row = event.target.closest("[role=tablist], [role=radiogroup], [role=menu]");
    if (!row || event.target === row) return this.turn(step);
    event.preventDefault();
    event.stopPropagation();
    const all = [...row.querySelectorAll("[role=tab], [role=radio], [role=menuitem]")].filter((each) => each.offsetParent);
    const next = all[(all.indexOf(event.target) + step + all.length) % all.length];
    next.focus();
    if (!next.matches("[role=menuitem]")) next.click();
    return undefined;
  }

  escape(typing) {
    if (this.popup) return this.pop(null);
    if (typing) return this.graph.canvas.focus();
    const { op, group, now } = this.selected;
    if (op !== null || group !== null || now !== null) return this.select({ ...this.selected, op: null, group: null, now: null });
    this.close();
    this.fold.focus();
    return undefined;
  }

  /** Show something over the rest, which has the focus until it goes; the same again: let it go. */
  pop(node) {
    const last = this.popup;
    this.popup = node && last?.className === node.className ? null : node;
    if (this.popup) {
      this.body.append(node);
      (node.querySelector("button") ?? node).focus({ preventScroll: true });
      node.addEventListener("focusout", (event) => { if (this.popup === node && !node.contains(event.relatedTarget)) this.pop(null); });
    }
    this.keepFocus(() => last?.remove());
  }

  help() {
    this.pop(h("div", { class: "tx-pop tx-help", role: "dialog", tabindex: "-1", "aria-label": "keys and signs" },
      KEYS.map(([key, said]) => [h("kbd", {}, key), h("span", {}, said)]),
      SIGNS.map(([sign, said]) => [h("span", { class: `tx-chip${sign === "f" ? " tx-call" : sign === "~" ? " tx-eager" : ""}`, style: sign === "A" ? `--c: ${hue("A")}` : null }, sign === "~" ? "" : sign), h("span", {}, said)]),
      h("kbd", {}, "~"), h("span", {}, "estimated")));
  }

  menu() {
    const item = (name, act) => h("button", { role: "menuitem", onclick: (event) => act(event.target) }, name);
    const flush = this.snapshot?.flushes[this.selected.flush];
    this.pop(h("div", { class: "tx-pop tx-menu", role: "menu" },
      flush && item("copy this flush's ops", (button) => copy(flush.ops.map((op) => op.text).join("\n"), button)),
      this.issue && item("copy as issue", async (button) => copy((await this.issue()) ?? "The kernel has ended.", button)),
      item("keys and signs", () => this.help())));
  }
}

/** What stands between stars is bold. */
const bold = (text) => text.split("*").map((part, index) => (index % 2 ? h("b", {}, part) : part));
