"""The explorer's front end as one module: what travels with each explorer, compressed."""

from __future__ import annotations

import base64
import functools
import json
import re
import zlib
from importlib.resources import files

FRONT = files("torchy_jupyter.explorer") / "front"
# each after what it needs
MODULES = ("dom", "cell", "timeline", "graph", "lenses", "values", "explorer", "widget")
IMPORT = re.compile(r'^import (\{.*\}) from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)

# anywidget imports it; a page needs the module once, however many explorers it has
LOADER = """\
const load = async () => {
  const packed = Uint8Array.from(atob("%(packed)s"), (letter) => letter.charCodeAt(0));
  const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).text();
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try { return await import(url); } finally { URL.revokeObjectURL(url); }
};
const { render } = await (globalThis["torchy-explorer-%(digest)s"] ??= load());
export default { render };
"""


def deflate(text: str) -> bytes:
    """Compress text as ``DecompressionStream("deflate-raw")`` reads it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(text.encode()) + packer.flush()


@functools.cache
def module() -> str:
    """Return all of the front end as one ES module that exports ``render``."""
    style = re.sub(
        r"/\*.*\*/|^\s+|\n",
        "",
        (FRONT / "explorer.css").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    parts = [f"const STYLE = {json.dumps(style)};"]
    for name in MODULES:
        text = (FRONT / f"{name}.js").read_text(encoding="utf-8")
        exported = ", ".join(found[2] for found in EXPORT.finditer(text))
        text = EXPORT.sub(r"\1", IMPORT.sub(r"const \1 = $\2;", text))
        parts.append(f"const ${name} = (() => {{\n{text}\nreturn {{ {exported} }};\n}})();")
    text = "\n".join([*parts, "const { render } = $widget;", "export { render };", ""])
    return re.sub(r"^\s+|^//.*\n", "", text, flags=re.MULTILINE)  # it travels: as little as may be


@functools.cache
def loader() -> str:
    """Return the module that unpacks :func:`module`."""
    packed = deflate(module())
    digest = f"{zlib.crc32(packed):08x}"
    return LOADER % {"packed": base64.b64encode(packed).decode(), "digest": digest}
