// What anywidget, and the saved page, make of the explorer.
import { Explorer, inflate } from "./explorer.js";
import { h } from "./dom.js";

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

const WAIT = 60_000; // milliseconds: older kernels answer when they are idle

export function render({ model, el, experimental }) {
  const ask = async (what, argument) => {
    if (!experimental) return null;
    const [answer, buffers] = await experimental.invoke(what, argument ?? null, { signal: AbortSignal.timeout(WAIT) });
    return buffers.length ? inflate(buffers[0]) : answer;
  };
  const asked = async (what, argument) => { try { return await ask(what, argument); } catch { return null; } };
  // Jupyter's shortcuts (arrow keys move between cells) must not see the explorer's keys
  const root = h("div", { class: "torchy tx", "data-lm-suppress-shortcuts": "true", "data-open": "0", tabindex: "-1", role: "region", "aria-label": "Torchy trace explorer" });
  el.append(h("style", {}, STYLE), root);
  const data = model.get("data");
  const restore = hideStatic(model.get("key"));
  const explorer = new Explorer(root, { summary: model.get("summary"), tags: model.get("tags"), parts: model.get("parts"), unfolded: model.get("unfolded") }, {
    load: async () => JSON.parse(data?.byteLength ? await inflate(data) : await ask("details")),
    failed: restore,
    fetch: (kernel, level) => asked("level", [kernel, level]),
    value: (number, op, step) => asked("value", [number, op, step]),
    issue: experimental && (() => asked("issue")),
  });
  return () => { explorer.end(); restore(); };
}
