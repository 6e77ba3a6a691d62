// Small things that all parts of the explorer use.

export const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

export const duration = (seconds) => {
  for (const [unit, scale] of [["s", 1], ["ms", 1e-3], ["µs", 1e-6]])
    if (seconds >= scale) return `${(seconds / scale).toFixed(seconds / scale < 9.95 ? 1 : 0)} ${unit}`;
  return `${(seconds * 1e9).toFixed(0)} ns`;
};

export const bytes = (count) => {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (count < 1024) return `${count.toFixed(unit === "B" || count >= 100 ? 0 : 1)} ${unit}`;
    count /= 1024;
  }
  return `${count.toFixed(1)} TiB`;
};

export const times = (count) => (count > 1 ? ` ×${count.toLocaleString("en")}` : "");
export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : noun.endsWith("sh") ? "es" : "s"}`;

/** Which of five colours a kernel has, by its letter; and that colour. */
export const hueNumber = (letter) => (letter.charCodeAt(letter.length - 1) - 65) % 5;
export const hue = (letter) => `var(--g${hueNumber(letter)})`;

const SAID = { f: "a call: torch runs this op itself", "~": "ran as eager: it was not recorded" };

/** The sign of a kernel (a filled letter), a call (f in a frame) or what ran as eager (hatched). */
export const chip = (sign) =>
  sign === "f" ? h("span", { class: "tx-chip tx-call", title: SAID.f }, "f")
    : sign === "~" ? h("span", { class: "tx-chip tx-eager", title: SAID["~"], role: "img", "aria-label": "ran as eager" })
      : h("span", { class: "tx-chip", style: `--c: ${hue(sign)}`, title: `kernel ${sign}` }, sign);

/** Text in which `code` stands between backquotes. */
export const prose = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));

const PYTHON = /(#.*$)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\b(and|as|assert|async|await|break|class|continue|def|del|elif|else|except|False|finally|for|from|global|if|import|in|is|lambda|None|nonlocal|not|or|pass|raise|return|True|try|while|with|yield)\b|\b(\d[\d_.eE]*)\b/g;

/** A line of Python with its comment, strings, keywords and numbers marked. */
export const python = (line) => {
  const parts = [];
  let end = 0;
  for (const found of line.matchAll(PYTHON)) {
    parts.push(line.slice(end, found.index));
    const kind = ["tx-com", "tx-str", "tx-key", "tx-num"][found.slice(1).findIndex((group) => group !== undefined)];
    parts.push(h("span", { class: kind }, found[0]));
    end = found.index + found[0].length;
  }
  return [...parts, line.slice(end)];
};

/** Scroll a pane, and nothing around it, until a child of it is seen. */
export const reveal = (pane, child) => {
  const outer = pane.getBoundingClientRect();
  const inner = child.getBoundingClientRect();
  if (inner.top < outer.top || inner.bottom > outer.bottom)
    pane.scrollTop += (inner.top + inner.bottom - outer.top - outer.bottom) / 2;
};

export const copy = async (text, button) => {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    button.textContent = "not allowed here";
  }
  setTimeout(() => { button.textContent = said; }, 1200);
};
