// The annotated cell: what each line took, what ran it, and where the flushes were.
import { chip, duration, h, prose, python, reveal } from "./dom.js";

export class Cell {
  /** `pick(file, line)`, `flush(index)` and `over(what)` are told what was clicked, or is under the pointer. */
  constructor(snapshot, { pick, flush, over }) {
    this.snapshot = snapshot;
    this.rows = new Map();
    const lines = h("div", { class: "tx-lines" });
    this.root = h("div", { class: "tx-cell", role: "group", "aria-label": "annotated cell", tabindex: "-1" }, lines);
    const most = Math.max(1e-12, ...snapshot.sources.flatMap((source) => source.lines.map((line) => line.seconds)));
    snapshot.sources.forEach((source, index) => {
      if (index || source.name !== snapshot.title) lines.append(h("div", { class: "tx-file" }, source.name));
      for (const line of source.lines) {
        const row = this.line(source, line, most, pick, over);
        this.rows.set(`${source.file}:${line.number}`, row);
        lines.append(row);
        for (const note of line.notes) lines.append(this.note(note, flush));
      }
    });
    const account = snapshot.account;
    for (const [seconds, said] of [[account.unplaced, "on lines that are not known"], [account.hidden, "flushes that are only counted"], [account.prepared, "planning, compiling"], [account.watching, "looking on: --keep, --nan, --compare"], [account.outside, "outside of ops: Python, recording"]])
      if (seconds > 0)
        lines.append(h("div", { class: "tx-line tx-rest" },
          h("span", { class: "tx-gutter" }, h("span", { class: "tx-ms" }, h("span", {}, duration(seconds))), h("span", { class: "tx-chips" }), h("span", { class: "tx-no" })),
          h("span", { class: "tx-code" }, said)));
  }

  line(source, line, most, pick, over) {
    const share = line.seconds / most;
    const live = line.ops > 0 || line.chips.length > 0;
    const said = live ? `line ${line.number}: ${line.ops} ops${line.seconds ? `, ${duration(line.seconds)}` : ""}` : null;
    return h(live ? "button" : "div", {
      class: `tx-line${live ? " tx-live" : ""}`, "data-line": line.number, "data-file": source.file, "aria-label": said && `${said}: ${line.text.trim()}`,
      onclick: live && (() => pick(source.file, line.number)),
      onmouseenter: live && (() => over({ file: source.file, line: line.number })), onmouseleave: live && (() => over(null)),
    },
      h("span", { class: "tx-gutter" },
        h("span", { class: `tx-ms${share < 0.04 ? " tx-cold" : ""}` },
          line.seconds > 0 && h("i", { style: `width: ${(4 + 62 * share).toFixed(1)}px; --a: ${(0.16 + 0.42 * share).toFixed(2)}` }),
          line.seconds > 0 && h("span", {}, `${line.estimated ? "~" : ""}${duration(line.seconds)}`)),
        h("span", { class: "tx-chips" }, line.chips.slice(0, 3).map(chip), line.chips.length > 3 && h("span", { class: "tx-dim", title: line.chips.join(" ") }, "…")),
        h("span", { class: "tx-no" }, String(line.number))),
      h("span", { class: "tx-code" }, line.text ? python(line.text) : " "));
  }

  note(note, flush) {
    const sign = { flush: "⚑", eager: "", error: "✕", nan: "✕", finding: "◆" }[note.kind];
    const acts = note.flush !== null;
    return h("div", { class: `tx-note tx-${note.kind}` },
      h("span", { class: "tx-gutter" }),
      h(acts ? "button" : "p", { class: "tx-said", onclick: acts && (() => flush(note.flush)) }, sign && `${sign} `, prose(note.text)));
  }

  /** Mark lines: `style` is "tx-on" or "tx-over". */
  paint(style, places) {
    this.root.querySelectorAll(`.tx-line.${style}`).forEach((row) => row.classList.remove(style));
    for (const [file, line] of places) this.rows.get(`${file}:${line}`)?.classList.add(style);
    const first = places.length && style === "tx-on" ? this.rows.get(`${places[0][0]}:${places[0][1]}`) : null;
    if (first) reveal(this.root, first);
  }
}
