"""Executed notebooks as pages that load nothing: of each explorer its static copy stays.

``python -m examples.pages FOLDER`` executes all notebooks of this folder and writes a page for each.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"
LOADED = ("mathjax", "require_js", "jquery", "mermaid_js", "mermaid_layout_elk_js")


def to_html(notebook: NotebookNode, name: str) -> str:
    """Return an executed notebook as a page with a title."""
    page = copy.deepcopy(notebook)
    page.metadata.pop("widgets", None)
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output for output in cell.outputs if WIDGET not in output.get("data", {})
            ]
    exporter = HTMLExporter(template_name="lab", **{f"{what}_url": "" for what in LOADED})
    html, _ = exporter.from_notebook_node(page, {"metadata": {"name": name}})
    return str(html)


def main() -> None:
    """Execute each notebook, and write what has become of it."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(HERE.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": str(HERE)}}
        NotebookClient(notebook, timeout=600, allow_errors=True, resources=resources).execute()
        (folder / f"{path.stem}.html").write_text(to_html(notebook, f"Torchy: {path.stem}"))
        print(folder / f"{path.stem}.html", flush=True)


if __name__ == "__main__":
    main()
