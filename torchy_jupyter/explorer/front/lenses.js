// What the right half shows of the selection, but for the graph: an overview, a kernel at each of its levels, eager's times.
import { bytes, chip, copy, duration, h, hue, plural, prose, reveal, times } from "./dom.js";

const term = (word, said) => h("dfn", { title: said }, word);
const KERNEL = "one loop over the elements that does the work of several ops, compiled for this trace";
const CALL = "an op that torch runs itself: fusing it would not pay, or could change its bits";
const FLUSH = "the point at which the recorded ops are fused and run, since the program looks at a value";

/** All that took time, the longest first: kernels, calls by name, what ran as eager. */
export function costs(snapshot) {
  const found = [];
  const named = new Map();
  const here = snapshot.sources[0]?.file;
  const names = new Map(snapshot.sources.map((source) => [source.file, source.name]));
  const place = (file, line) => (file === here ? String(line) : `${names.get(file) ?? file}:${line}`);
  snapshot.flushes.forEach((flush, index) => {
    const ops = new Map(flush.ops.map((op) => [op.index, op]));
    for (const group of flush.groups) {
      const members = group.ops.map((op) => ops.get(op));
      const lines = [...new Set(members.filter((op) => op.line !== null).map((op) => place(op.file, op.line)))];
      const entry = { sign: group.letter || "f", name: members.map((op) => op.name).join(" "), lines, seconds: group.seconds, eager: group.eager, flush: index, group: group.id, count: group.count * flush.count, one: group.kind === "fused" && !group.compiled };
      if (group.kind === "fused") found.push(entry);
      else {
        const key = `${entry.name}:${lines.join()}`;
        const known = named.get(key);
        if (known) { known.seconds += entry.seconds; known.eager += entry.eager; known.count += entry.count; } else { named.set(key, entry); found.push(entry); }
      }
    }
  });
  snapshot.ran_now.forEach((now, index) => {
    const lines = now.line === null ? [] : [place(now.file, now.line)];
    found.push({ sign: "~", name: now.short, lines, seconds: now.seconds, eager: now.seconds, count: now.count, now: index });
  });
  return found.sort((a, b) => b.seconds - a.seconds);
}

/** Some lines, or from which to which if they are many. */
function lineRange(lines) {
  if (lines.length <= 3) return lines.join(", ");
  const numbers = lines.map(Number).sort((a, b) => a - b);
  return numbers.some(Number.isNaN) ? `${lines[0]}, …` : `${numbers[0]}–${numbers[numbers.length - 1]}`;
}

function sentence({ counts, account }, all) {
  if (!counts.kernels && !counts.calls && !counts.one_by_one) return h("p", { class: "tx-lead" }, `None of your ${plural(counts.ops, "op")} had to run: nobody has looked at a result.`);
  const parts = [`Your ${plural(counts.ops, "op")} ran as `];
  if (counts.kernels) parts.push(h("b", {}, counts.kernels.toLocaleString("en"), " ", term(counts.kernels === 1 ? "kernel" : "kernels", KERNEL)), counts.calls ? " and " : "");
  if (counts.calls) parts.push(counts.calls.toLocaleString("en"), " ", term(counts.calls === 1 ? "call" : "calls", CALL));
  if (counts.one_by_one) parts.push(counts.kernels || counts.calls ? ", and " : "", `${counts.one_by_one.toLocaleString("en")} one by one: what is met for the first time is compiled in the background, for the next run`);
  parts.push(", in ", counts.flushes.toLocaleString("en"), " ", term(counts.flushes === 1 ? "flush" : "flushes", FLUSH), ". ");
  const best = all.filter((each) => each.eager > each.seconds && !each.one && each.sign !== "f" && each.sign !== "~").sort((a, b) => b.eager - b.seconds - a.eager + a.seconds)[0];
  if (best && account.eager_cell) {
    const names = best.name.split(" ");
    parts.push(`Kernel ${best.sign} does ${names.length} of them (${names.slice(0, 4).join(", ")}${names.length > 4 ? ", …" : ""}) in `, h("b", {}, `one pass over memory: ${duration(best.seconds)}`), `; eager takes ${account.measured ? "" : "~"}${duration(best.eager)}.`);
  }
  return h("p", { class: "tx-lead" }, parts);
}

function bars(account) {
  const most = Math.max(account.cell, account.eager_cell, 1e-9);
  const part = (seconds, style, said) => seconds > 0 && h("i", { class: style, style: `width: ${((100 * seconds) / most).toFixed(2)}%`, title: `${said}: ${duration(seconds)}` });
  const said = [[account.kernels, "kernels"], [account.interpreted, "one by one"], [account.calls, "calls"], [account.eager, "ran as eager"], [account.hidden, "only counted"], [account.prepared, "planning, compiling"], [account.watching, "looking on"], [account.outside, "outside of ops"]].filter(([seconds]) => seconds > 0);
  return h("div", { class: "tx-account" },
    h("div", { class: "tx-compared" },
      h("span", {}, "Torchy"),
      h("span", { class: "tx-meter" }, part(account.kernels, "tx-ink", "kernels"), part(account.interpreted, "tx-softer", "one by one"), part(account.calls, "tx-soft", "calls"), part(account.eager, "tx-hatch", "ran as eager"), part(account.hidden, "tx-mid", "only counted"), part(account.prepared, "tx-paler", "planning, compiling"), part(account.watching, "tx-mid", "looking on"), part(account.outside, "tx-pale", "outside of ops")),
      h("b", {}, duration(account.cell)),
      account.eager_cell > 0 && [h("span", {}, "eager"), h("span", { class: "tx-meter" }, part(account.eager_cell, "tx-mid", account.measured ? "measured" : "estimated")), h("span", { class: "tx-dim" }, `${account.measured ? "" : "~"}${duration(account.eager_cell)}`)]),
    h("p", { class: "tx-dim" }, said.map(([seconds, what]) => `${what} ${duration(seconds)}`).join(" · ")));
}

/** What to change: the code between backquotes, what it costs, what the change brings. */
const advice = (finding, line) => h("button", { class: "tx-card tx-advice", onclick: () => line(finding.file, finding.line) },
  h("b", {}, `line ${finding.line}: `), prose(finding.text), h("span", { class: "tx-dim" }, ` costs ~${duration(finding.lost_seconds)}`), finding.gain_seconds !== null && h("b", {}, `; the change brings ${duration(finding.gain_seconds)}, measured`));

export function overview(snapshot, { select, pickNow, over, line }) {
  const all = costs(snapshot);
  const shown = all.filter((each) => each.seconds > 0).slice(0, 14);
  const root = h("div", { class: "tx-pad" });
  if (!snapshot.counts.ops) {
    root.append(h("p", { class: "tx-lead" }, "No op was deferred in this cell."));
  } else root.append(sentence(snapshot, all));
  if (snapshot.error) root.append(h("div", { class: "tx-card tx-bad" }, h("b", {}, "The cell failed: "), snapshot.error));
  if (snapshot.asleep) root.append(h("div", { class: "tx-card" }, h("b", {}, "Asleep: "), snapshot.asleep, ". The rest ran as if Torchy were off."));
  if (snapshot.birth) root.append(h("div", { class: "tx-card tx-bad" }, prose(snapshot.birth.text)));
  if (snapshot.equal !== null) root.append(h("div", { class: `tx-card${snapshot.equal ? " tx-good" : " tx-bad"}` }, snapshot.equal ? "Eager was run on the same inputs: all bits are equal." : "Eager was run on the same inputs: other bits, see below."));
  snapshot.findings.forEach((finding) => root.append(advice(finding, line)));
  root.append(bars(snapshot.account));
  if (shown.length) root.append(h("h4", {}, "Where the time went"), h("div", { class: "tx-list", role: "group", "aria-label": "where the time went" },
    h("div", { class: "tx-row tx-headed", "aria-hidden": "true" }, ["", "", "line", "time", snapshot.account.eager_cell ? (snapshot.account.measured ? "eager" : "eager ~") : ""].map((text) => h("span", {}, text))),
    shown.map((each) => h("button", {
      class: "tx-row", "data-flush": each.flush, "data-group": each.group, "data-now": each.now,
      onclick: () => (each.flush === undefined ? pickNow(each.now) : select(each.flush, null, each.group)),
      onmouseenter: () => each.flush !== undefined && over({ flush: each.flush, group: each.group }), onmouseleave: () => over(null),
    },
      h("span", {}, chip(each.sign)),
      h("span", { class: "tx-name", title: each.name }, each.name, times(each.count), each.sign === "~" && h("span", { class: "tx-dim" }, " ran as eager"), each.one && h("span", { class: "tx-dim" }, " one by one")),
      h("span", { title: each.lines.join(", ") }, lineRange(each.lines)),
      h("span", {}, duration(each.seconds)),
      h("span", { class: "tx-dim" }, snapshot.account.eager_cell ? duration(each.eager) : "")))));
  if (snapshot.notes.length) root.append(h("ul", { class: "tx-notes" }, snapshot.notes.map((note) => h("li", {}, note))));
  return root;
}

const MOST_ROWS = 800;

export function eager(snapshot, { select }) {
  const body = h("tbody");
  let rows = 0;
  const most = Math.max(1e-12, ...snapshot.flushes.flatMap((flush) => flush.groups.flatMap((group) => [group.seconds, group.eager])));
  snapshot.flushes.forEach((flush, index) => {
    const ops = new Map(flush.ops.map((op) => [op.index, op]));
    for (const group of flush.groups)
      group.ops.forEach((at, position) => {
        if (rows++ >= MOST_ROWS) return;
        const op = ops.get(at);
        body.append(h("tr", { "data-flush": index, "data-op": op.index, class: position ? "" : "tx-first", onclick: () => select(index, op.index, group.id) },
          position === 0 && h("td", { rowspan: group.ops.length, class: "tx-of" }, chip(group.letter || "f")),
          h("td", { class: "tx-name" }, h("button", {}, op.name, times(op.count))),
          h("td", { class: "tx-right" }, op.line ?? ""),
          position === 0 && h("td", { rowspan: group.ops.length, class: "tx-meters" }, h("i", { style: `width: ${((100 * group.seconds) / most).toFixed(1)}%; background: ${group.letter ? hue(group.letter) : "var(--call)"}` }), h("span", {}, duration(group.seconds))),
          h("td", { class: "tx-meters" }, h("i", { class: "tx-mid", style: `width: ${((100 * op.eager) / most).toFixed(1)}%` }), h("span", {}, `${snapshot.account.measured ? "" : "~"}${duration(op.eager)}`))));
      });
  });
  return h("div", { class: "tx-pad" }, h("p", { class: "tx-dim" }, snapshot.account.measured ? "Eager ran each op on the same inputs. A kernel is one bar: only that is measured." : "Eager's times are estimated from what each op takes on a few elements. A kernel is one bar: only that is measured."),
    rows > MOST_ROWS && h("p", { class: "tx-dim" }, `The first ${MOST_ROWS} of ${rows.toLocaleString("en")} ops; all are in the report.`),
    h("table", { class: "tx-table" }, h("thead", {}, h("tr", {}, ["", "op", "line", "Torchy", snapshot.account.measured ? "eager" : "eager ~"].map((text) => h("th", {}, text)))), body));
}

// -- the kernel

const MOST_LISTED = 3000; // ops

const STOPS = [
  ["as recorded", "what your program called, in order"],
  ["dead removed", "what nobody can reach any more is struck out: it never ran"],
  ["grouped", "ops that ran together; between groups, values go through memory"],
];
const SAID = {
  "loop nest": "what the kernel does for each element; names are your program's",
  "LLVM IR": "the kernel as the compiler gets it, optimised",
  assembly: "what the processor runs",
};

function listing(flush, stop, selected, select) {
  const groups = new Map(flush.groups.map((group) => [group.id, group]));
  const root = h("div", { class: "tx-src" });
  let last;
  for (const op of flush.ops.slice(0, MOST_LISTED)) {
    const group = groups.get(op.group);
    if (stop === "grouped" && op.group !== last) {
      root.append(h("div", { class: "tx-groupline" }, group ? [chip(group.letter || "f"), ` ${group.letter ? `kernel ${group.letter}` : "call"}${times(group.count)}, ${duration(group.seconds)}`, group.why_apart && h("span", { class: "tx-dim" }, `  apart: ${group.why_apart}`)] : "never run"));
      last = op.group;
    }
    root.append(h("button", {
      class: `tx-source${op.index === selected.op ? " tx-on" : ""}${stop !== "as recorded" && op.dead ? " tx-dead" : ""}`, "data-op": op.index,
      style: stop === "grouped" && group?.letter ? `--lc: ${hue(group.letter)}` : null, onclick: () => select(op.index, op.group),
    }, h("span", { class: "tx-text" }, op.text, times(op.count)), h("span", { class: "tx-why" }, [op.variable, op.line !== null && `line ${op.line}`, !op.stored && !op.dead && "never stored"].filter(Boolean).join(", "))));
  }
  if (flush.ops.length > MOST_LISTED) root.append(h("div", { class: "tx-source" }, `… ${(flush.ops.length - MOST_LISTED).toLocaleString("en")} more`));
  return root;
}

const STATEMENT = /  # (\d+): \w+(?:, )?(.*)$/;

/** The loop nest: in the program's names for memory and numbers, each line with the op that it is part of. */
function nest(lines, group, flush, selected, select) {
  return lines.map((line, index) => {
    const found = line.match(STATEMENT);
    const op = found && flush.ops.find((each) => each.index === group.statements[Number(found[1])]);
    const text = line.replace(STATEMENT, "").replace(/\ba(\d+)\b/g, (all, access) => group.names[access] ?? all).replace(/\bnumber(\d+)\b/g, (all, number) => group.numbers[number] ?? all);
    const why = op && [op.name, op.line !== null && `line ${op.line}`, found[2]].filter(Boolean).join(", ");
    return h(op ? "button" : "div", { class: `tx-source${op && op.index === selected.op ? " tx-on" : ""}`, "data-op": op?.index, onclick: op && (() => select(op.index, op.group)) },
      h("span", { class: "tx-ln" }, String(index + 1)), h("span", { class: "tx-text" }, text || " "), why && h("span", { class: "tx-why" }, why));
  });
}

/** Any other level. */
const plain = (lines) => lines.map((line, index) => h("div", { class: "tx-source" }, h("span", { class: "tx-ln" }, String(index + 1)), h("span", { class: "tx-text" }, line || " ")));

export class Kernel {
  /** `fetch(kernel, level)` gives a text, or null where nobody can give it any more. */
  constructor(snapshot, { select, fetch }) {
    Object.assign(this, { snapshot, select, fetch });
    this.level = "loop nest";
    this.texts = new Map();
    this.root = h("div", { class: "tx-kernel" });
  }

  show(selected) {
    const flush = this.snapshot.flushes[selected.flush];
    if (!flush) return this.root.replaceChildren(h("p", { class: "tx-pad tx-dim" }, "No op was deferred in this cell."));
    const kernels = flush.groups.filter((group) => group.kind === "fused");
    const hottest = [...(kernels.length ? kernels : flush.groups)].sort((a, b) => b.seconds - a.seconds)[0];
    const group = selected.group === null ? hottest : flush.groups.find((each) => each.id === selected.group);
    const kernel = group && this.snapshot.kernels.find((each) => each.id === group.kernel);
    const levels = kernel ? kernel.levels.map(([name]) => name) : [];
    const stops = [...STOPS, ...levels.map((name) => [name, SAID[name] ?? ""])];
    const level = stops.some(([name]) => name === this.level) ? this.level : levels.includes("loop nest") ? "loop nest" : "grouped";
    const facts = group && [duration(group.seconds), group.compiled && group.eager > 0 && `eager ~${duration(group.eager)}`, group.moved > 0 && `${bytes(group.moved)} through memory, ${(group.moved / Math.max(group.seconds, 1e-9) / 1e9).toFixed(1)} GB/s`,
      kernel?.compile_seconds ? `compiled in ${duration(kernel.compile_seconds)}` : group.kind === "fused" && !group.compiled && "not compiled yet: its ops ran one by one", group.refused && `ran one by one: ${group.refused}`, group.why_apart && `apart: ${group.why_apart}`].filter(Boolean);
    const body = h("div", { class: "tx-scroll", tabindex: "0", role: "region", "aria-label": level });
    const copies = h("button", { class: "tx-tool tx-framed" }, "copy");
    this.root.replaceChildren(
      h("div", { class: "tx-facts" }, group ? [chip(group.letter || "f"), h("b", {}, group.letter ? `kernel ${group.letter}` : `call ${flush.ops.find((op) => op.index === group.ops[0])?.name ?? ""}`), facts.map((fact) => h("span", {}, prose(fact)))] : h("b", {}, `flush ${selected.flush + 1}`)),
      h("div", { class: "tx-stops", role: "radiogroup", "aria-label": "level" }, stops.map(([name]) =>
        h("button", { role: "radio", "aria-checked": String(name === level), tabindex: name === level ? "0" : "-1", onclick: () => { this.level = name; this.show(selected); this.root.querySelector("[aria-checked=true]").focus(); } }, name))),
      h("div", { class: "tx-said" }, h("span", {}, stops.find(([name]) => name === level)?.[1]), copies),
      body);
    copies.addEventListener("click", () => copy(body.innerText, copies));
    if (!levels.includes(level)) {
      body.append(listing(flush, level, selected, (op, of) => this.select(selected.flush, op, of)));
      return this.reveal(body);
    }
    return this.text(kernel, level).then((text) => {
      if (text === null) return body.replaceChildren(h("p", { class: "tx-pad tx-dim" }, "The kernel that compiled it has ended; %torchy save keeps all levels."));
      const lines = text.replace(/\n$/, "").split("\n");
      body.replaceChildren(h("div", { class: "tx-src" }, level === levels[0] ? nest(lines, group, flush, selected, (op, of) => this.select(selected.flush, op, of)) : plain(lines)));
      return this.reveal(body);
    });
  }

  reveal(body) {
    const chosen = body.querySelector(".tx-on");
    if (chosen) reveal(body, chosen);
  }

  async text(kernel, level) {
    const key = `${kernel.id}:${level}`;
    if (!this.texts.has(key)) {
      const [, known] = kernel.levels.find(([name]) => name === level);
      const found = known || (await this.fetch(kernel.id, level));
      if (found === null) return null;
      this.texts.set(key, found);
    }
    return this.texts.get(key);
  }
}
