"""The explorer as one file: the widget's module and its state, clickable without a kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from torchy_jupyter.explorer.widget import front

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Torchy: {title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 12px; background: Canvas; }}
body.torchy-dark {{
  --jp-layout-color0: #16181c; --jp-layout-color1: #1d2025; --jp-layout-color2: #2a2e35;
  --jp-content-font-color1: #e4e7eb; --jp-content-font-color2: #9aa5b1; --jp-border-color2: #3a4049;
  background: #101215;
}}
{css}
.torchy-panes {{ height: calc(100vh - 260px); }}
</style>
<body>
<script type="application/json" id="state">{state}</script>
<script type="module">
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.body.classList.toggle("torchy-dark", dark.matches);
dark.addEventListener("change", paint);
paint();
{module}
const state = JSON.parse(document.getElementById("state").textContent);
const model = {{ get: (name) => state[name], set: () => {{}}, save_changes: () => {{}}, on: () => {{}}, off: () => {{}} }};
render({{ model, el: document.body }});
</script>
"""


def page(title: str, state: Mapping[str, Any]) -> str:
    """Return the HTML of a saved explorer.

    Parameters
    ----------
    title
        Of the page.
    state
        The widget's: ``key``, ``snapshot``, ``dots`` and ``svgs``.
    """
    text = json.dumps(state, ensure_ascii=False).replace("<", "\\u003c")
    module = front("explorer.js").replace("export default { render };\n", "")
    return PAGE.format(title=escape(title), css=front("explorer.css"), state=text, module=module)
