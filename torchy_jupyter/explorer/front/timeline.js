// The time line: flushes one after another, with what ran in them, what ran as eager between them, and the rest.
import { duration, h, hue, times } from "./dom.js";

const MOST = 240; // bars; what is shorter joins the one before it
const LAST_FLAG = 88; // percent: the total stands at the right

/** What happened, in order: `{seconds, sign, label, flush, group}`. */
function bars(snapshot) {
  const found = [];
  const events = [
    ...snapshot.flushes.map((flush, index) => ({ began: flush.began, flush, index })),
    ...snapshot.ran_now.map((now, index) => ({ began: now.began, now, index })),
  ].sort((a, b) => a.began - b.began);
  for (const { flush, index, now } of events) {
    if (now) {
      found.push({ seconds: now.seconds, sign: "~", label: now.short, said: `${now.short} ran as eager${times(now.count)}: ${now.why}`, now: index });
      continue;
    }
    const named = new Map(flush.ops.map((op) => [op.index, op.name]));
    flush.groups.forEach((group, position) => {
      const what = group.letter || named.get(group.ops[0]) || "call";
      found.push({
        seconds: group.seconds, sign: group.letter || "f", label: what, flush: index, group: group.id, first: position === 0,
        said: `flush ${index + 1}${times(flush.count)}, ${group.letter ? `kernel ${group.letter}${group.compiled ? "" : ", its ops one by one"}` : what}: ${duration(group.seconds)}`,
      });
    });
  }
  if (found.length <= MOST) return found;
  const least = found.map((bar) => bar.seconds).sort((a, b) => b - a)[MOST];
  const kept = [];
  for (const bar of found) {
    if (bar.seconds > least || bar.first || !kept.length) kept.push({ ...bar });
    else kept[kept.length - 1].seconds += bar.seconds;
  }
  return kept;
}

export function timeline(snapshot, { pick, pickNow }) {
  const { account } = snapshot;
  const total = Math.max(account.cell, 1e-9);
  const row = h("div", { class: "tx-bars" });
  const flags = h("div", { class: "tx-flags" });
  let at = 0;
  let flagged = -10;
  for (const bar of bars(snapshot)) {
    const width = (100 * bar.seconds) / total;
    if (bar.first) {
      if (at - flagged > 9 && at < LAST_FLAG) { // percent: room for a flag's text
        flags.append(h("span", { class: "tx-flagged", style: `left: ${at.toFixed(2)}%` }, `⚑ flush ${bar.flush + 1}${times(snapshot.flushes[bar.flush].count)}`));
        flagged = at;
      }
    }
    row.append(h("button", {
      class: `tx-bar ${bar.sign === "f" ? "tx-call" : bar.sign === "~" ? "tx-eager" : "tx-kernel"}${bar.first ? " tx-first" : ""}`,
      style: `width: ${width.toFixed(3)}%${bar.sign !== "f" && bar.sign !== "~" ? `; --c: ${hue(bar.sign)}` : ""}`,
      title: bar.said, "aria-label": bar.said, tabindex: "-1", "data-flush": bar.flush, "data-group": bar.group,
      "data-now": bar.now, onclick: () => (bar.flush === undefined ? pickNow(bar.now) : pick(bar.flush, bar.group)),
    }, width > 2.2 && h("span", {}, bar.label)));
    at += width;
  }
  for (const [seconds, style, said] of [[account.hidden, "tx-mid", "flushes that are only counted"], [account.prepared, "tx-paler", "planning, compiling"]])
    if (seconds > 0) row.append(h("span", { class: `tx-bar ${style}`, style: `width: ${((100 * seconds) / total).toFixed(3)}%`, title: `${said}: ${duration(seconds)}` }));
  const rest = (100 * account.outside) / total;
  row.append(h("span", { class: "tx-outside", style: `width: ${Math.max(0, rest).toFixed(3)}%`, title: `outside of ops: ${duration(account.outside)}` }, rest > 8 ? h("span", {}, "Python, recording") : null));
  return h("div", { class: "tx-time", role: "group", "aria-label": "time line" }, flags, row, h("span", { class: "tx-total" }, duration(total)));
}
