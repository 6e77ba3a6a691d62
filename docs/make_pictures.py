"""Makes the docs' pictures of the explorer: runs cells, saves their explorers, and looks at them in Chromium.

    .venv/bin/python docs/make_pictures.py

Needs what the browser tests need: playwright and Chromium.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from playwright.sync_api import Page, sync_playwright

import torchy_jupyter

HERE = Path(__file__).parent
SETUP = """\
import torch
scores, mask, values = torch.randn(1024, 2048), torch.rand(1024, 2048) > 0.1, torch.randn(2048, 64)
%load_ext torchy_jupyter"""
ATTENTION = """\
%%torchy --compile always
def softmax(x):
    peak = x.amax(-1, keepdim=True)
    shifted = x - peak
    weights = shifted.exp()
    return weights / weights.sum(-1, keepdim=True)

scaled = scores * 0.125
masked = scaled.masked_fill(~mask, float("-inf"))
attention = softmax(masked)
entropy = -(attention * (attention + 1e-9).log()).sum(-1)
if entropy.max() > 7.0:
    attention = attention * 0.9 + 0.1 / 2048
keep = torch.rand_like(attention) > 0.1
dropped = attention * keep / 0.9
out = dropped @ values
out.mean()"""


def run(shell: InteractiveShell, cell: str, times: int = 1) -> None:
    """Run a cell, its output aside."""
    for _ in range(times):
        with capture_output():
            shell.run_cell(cell, store_history=True).raise_error()


def take(page: Page, name: str, *clicks: str) -> None:
    """Click, and take a picture of the explorer."""
    for click in clicks:
        page.locator(click).first.click()
    page.wait_for_timeout(300)
    page.locator(".torchy").screenshot(path=HERE / f"{name}.png")


def main() -> None:
    """Make all pictures."""
    shell = InteractiveShell.instance()
    run(shell, SETUP)
    run(shell, ATTENTION, times=6)
    explorer = torchy_jupyter.last_explorer()
    assert explorer is not None
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        saved = Path(folder) / "trace.html"
        explorer.save(saved)
        browser = started.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1240, "height": 620}, device_scale_factor=1.5)
        page.goto(saved.as_uri())
        take(page, "explorer")
        line = "button.tx-line[data-line='11']"
        take(page, "explorer-graph", "[data-lens=Graph]", line)
        take(page, "explorer-kernel", "[data-lens=Kernel]")
        page.emulate_media(color_scheme="dark")
        take(page, "explorer-dark", "[data-lens=Graph]")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        take(page, "explorer-folded")
        browser.close()


if __name__ == "__main__":
    main()
