"""Run the README's first cells in a real kernel, without any compiler, and tell how long that took."""

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

README = Path(__file__).parent.parent / "README.md"
CELLS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[:2]
TELL = "import torchy.record.building as b; print(b.compiler(), b.build(), sep='\\n')"


def main() -> None:
    """Fail if a cell does, if there is no explorer, or if anything had to be compiled by a C++ compiler."""
    with tempfile.TemporaryDirectory() as home:
        for name in ("CC", "CXX", "PYTHONPATH"):
            os.environ.pop(name, None)
        os.environ.update(PATH=str(Path(sys.executable).parent), HOME=home, XDG_CACHE_HOME=home)
        cells = [nbformat.v4.new_code_cell(text) for text in (*CELLS, TELL)]
        notebook = nbformat.v4.new_notebook(cells=cells)
        begin = time.perf_counter()
        NotebookClient(notebook, resources={"metadata": {"path": home}}, timeout=120).execute()
        seconds = time.perf_counter() - begin
        told = "".join(output.get("text", "") for output in cells[2].outputs)
        shown = [output.get("data", {}).get("text/plain", "") for output in cells[1].outputs]
    compiler, library = told.splitlines()
    print(*shown, library, sep="\n")
    assert compiler == "None" and "/bundled/" in library, told
    assert any("Torchy" in text and "fused" in text for text in shown), shown
    print(f"from starting the kernel to the explorer: {seconds:.1f} s")


if __name__ == "__main__":
    main()
