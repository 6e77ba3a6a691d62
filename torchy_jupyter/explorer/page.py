"""The explorer as one file: the front end and all data, clickable without a kernel."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from typing import Any

from torchy_jupyter.explorer.bundle import deflate, module

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Torchy: {title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 12px; background: #fff; }}
body.torchy-dark {{ background: #14171b; }}
.tx-main {{ height: max(var(--h), calc(100vh - 150px)) !important; }}
</style>
<body>
<noscript>{static}</noscript>
<script type="module">
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.body.classList.toggle("torchy-dark", dark.matches);
dark.addEventListener("change", paint);
paint();
{module}
const state = {state};
const data = Uint8Array.from(atob("{data}"), (letter) => letter.charCodeAt(0));
const model = {{ get: (name) => (name === "data" ? data : state[name]) }};
render({{ model, el: document.body }});
</script>
"""


def page(title: str, state: Mapping[str, Any], snapshot: Mapping[str, Any], static: str) -> str:
    """Return the HTML of a saved explorer.

    Parameters
    ----------
    title
        Of the page.
    state
        The widget's, without data.
    snapshot
        With the texts of all kernels.
    static
        HTML for whoever has no scripts.
    """
    text = json.dumps({**state, "unfolded": True}, ensure_ascii=False).replace("<", "\\u003c")
    data = base64.b64encode(deflate(json.dumps(snapshot, separators=(",", ":")))).decode()
    code = module().replace("export { render };\n", "").replace("</", "<\\/")
    return PAGE.format(title=escape(title), static=static, module=code, state=text, data=data)
