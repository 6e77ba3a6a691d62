"""The explorer in JupyterLab and Notebook 7, in a real browser: a click on a line shows its ops and its kernel."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = ROOT / "build" / "screenshots"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
CELLS = [
    "%load_ext torchy_jupyter\nimport torch",
    "%%torchy --compile always\n"
    "x = torch.linspace(0, 1, 64)\n"
    "y = x * 3 + 1\n"
    "z = (y - x).relu()\n"
    "print(z.sum().item())",
]
IDLE = (
    "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status"
    " === 'idle'"
)
RUN = """async index => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    notebook.deselectAll();
    await window.jupyterapp.commands.execute('notebook:run-cell');
}"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


PATHS = {"lab": "doc/tree", "notebook": "notebooks"}  # of a notebook, by application


@contextlib.contextmanager
def application(name: str, home: Path, notebooks: Path, theme: str) -> Iterator[tuple[str, str]]:
    """A JupyterLab or Notebook on loopback with settings of its own; yields its address and token."""
    env = os.environ | {"IPYTHONDIR": str(home / "ipython"), "PYTHONPATH": str(ROOT)}
    env |= {
        f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    env |= {
        f"JUPYTERLAB_{name}_DIR": str(home / name.lower()) for name in ("SETTINGS", "WORKSPACES")
    }
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    (settings / "themes.jupyterlab-settings").write_text(
        json.dumps({"theme": f"JupyterLab {theme.capitalize()}"})
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyter", name, "--no-browser", "--allow-root"),
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={notebooks}",
        "--LabApp.expose_app_in_browser=True",
        "--JupyterNotebookApp.expose_app_in_browser=True",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    base = f"http://127.0.0.1:{port}"
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        request = urllib.request.Request(
            f"{base}/api/status", headers={"Authorization": f"token {token}"}
        )
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(request, timeout=5).close()
                break
            time.sleep(0.25)
        yield base, token
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


@contextlib.contextmanager
def opened(tmp_path: Path, theme: str, *texts: str, app: str = "lab") -> Iterator[playwright.Page]:  # type: ignore[name-defined]
    """A notebook (the one above), its cells run; in the end nothing has left loopback."""
    texts = texts or tuple(CELLS)
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(text) for text in texts]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), notebooks / "nb.ipynb")
    with (
        application(app, tmp_path / "home", notebooks, theme) as (base, token),
        playwright.sync_playwright() as started,
    ):
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        foreign: list[str] = []
        errors: list[str] = []
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((base, "data:", "blob:"))
                else foreign.append(request.url)
            ),
        )

        def note(error: playwright.Error) -> None:  # type: ignore[name-defined]
            if app == "lab" or "blob:" in (error.stack or ""):  # Notebook 7 has errors of its own
                errors.append(str(error))

        page.on("pageerror", note)
        page.goto(f"{base}/{PATHS[app]}/nb.ipynb?token={token}")
        page.wait_for_function(IDLE, timeout=90_000)
        for index in range(len(texts)):
            page.evaluate(RUN, index)
        page.locator(".torchy").last.wait_for(timeout=120_000)
        yield page
        browser.close()
        assert not foreign, foreign
        assert not errors, errors


def look(page: playwright.Page, shot: str) -> None:  # type: ignore[name-defined]
    """Click a line, and move on from there by key, lens and level."""
    expect = playwright.expect
    detail = page.locator(".tx-detail")
    code = page.locator(".tx-kernel .tx-src")
    page.locator(".tx-line", has_text="z = (y - x).relu()").click(timeout=60_000)
    line = page.locator(".tx-line.tx-on")
    expect(line).to_have_count(1)
    expect(line).to_contain_text("z = (y - x).relu()")
    expect(page.locator("[data-lens=Graph]")).to_have_attribute("aria-selected", "true")
    expect(detail).to_contain_text("line 4")
    expect(detail).to_contain_text("kernel A")
    page.locator("[data-lens=Kernel]").click()
    expect(code).to_contain_text("for each vector of elements")
    expect(code).to_contain_text("y[i]")  # the program's name for it
    expect(code.locator(".tx-on").first).to_contain_text("line 4")  # the op that is selected
    page.get_by_role("radio", name="assembly").click()
    expect(code).to_contain_text("mov", timeout=30_000)  # from the kernel
    page.get_by_role("radio", name="LLVM IR").click()
    expect(code).to_contain_text("define", timeout=30_000)
    page.get_by_role("radio", name="grouped").click()
    expect(code).to_contain_text("kernel A")
    page.locator("[data-lens=Graph]").click()
    page.wait_for_timeout(300)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.locator(".torchy").screenshot(path=SHOTS / shot)

    before = detail.inner_text()
    page.keyboard.press("ArrowUp")  # the tab has the focus: still the explorer's key
    expect(detail).not_to_have_text(before)
    page.locator(".tx-line", has_text="y = x * 3 + 1").click()
    expect(detail).to_contain_text("line 3")
    page.keyboard.press("Escape")
    expect(page.locator(".tx-line.tx-on")).to_have_count(0)
    expect(page.locator(".tx-note.tx-flush").first).to_contain_text(
        "`.item()` needed".replace("`", "")
    )
    assert page.locator(".torchy-static").count() == 1
    expect(page.locator(".torchy-static")).to_be_hidden()  # while the widget lives
    page.keyboard.press("Escape")
    expect(page.locator(".tx-body")).to_be_hidden()  # folded
    expect(page.locator(".tx-fold")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".tx-body")).to_be_visible()


def test_a_click_on_a_line_shows_its_ops_and_its_kernel(tmp_path: Path) -> None:
    with opened(tmp_path, "light") as page:
        look(page, "explorer-light.png")


def test_it_is_the_same_in_notebook_7(tmp_path: Path) -> None:
    with opened(tmp_path, "light", app="notebook") as page:
        look(page, "explorer-notebook.png")


def test_without_dot_it_is_the_same_and_dark_is_dark(tmp_path: Path) -> None:
    hide_dot = "import os; os.environ['PATH'] = '/without-dot'"  # the walker has been built by then
    with opened(tmp_path, "dark", *CELLS[:-1], f"{CELLS[-1]}\n{hide_dot}") as page:
        look(page, "explorer-dark.png")
        colour = page.locator(".torchy").evaluate("e => getComputedStyle(e).backgroundColor")
        assert max(map(int, re.findall(r"\d+", colour)[:3])) < 80


def test_an_explorer_that_the_kernel_lets_go_of_leaves_its_static_copy(tmp_path: Path) -> None:
    load, shown = CELLS
    only_one = f"{load}\nimport torchy_jupyter.cell\ntorchy_jupyter.cell.MOST_SHOWN = 1"
    with opened(tmp_path, "light", only_one, shown, shown.replace("relu", "exp")) as page:
        expect = playwright.expect
        copies = page.locator(".torchy-static")
        expect(copies).to_have_count(2, timeout=60_000)
        expect(page.locator(".torchy")).to_have_count(1)
        expect(copies.first).to_be_visible()
        expect(copies.last).to_be_hidden()
        expect(page.locator(".tx-body")).to_be_hidden()  # the second one is folded
        page.locator(".tx-fold").click()
        expect(page.locator(".tx-cell")).to_contain_text("exp")


def test_a_narrow_output_shows_the_cell_as_a_view_of_its_own(tmp_path: Path) -> None:
    with opened(tmp_path, "light") as page:
        page.set_viewport_size({"width": 700, "height": 900})
        page.locator("[data-lens=Cell]").click()
        playwright.expect(page.locator(".tx-solo .tx-cell")).to_be_visible()
        page.locator(".torchy").screenshot(path=SHOTS / "explorer-narrow.png")


def test_the_keys_find_an_op_and_explain_themselves(tmp_path: Path) -> None:
    with opened(tmp_path, "light") as page:
        expect = playwright.expect
        page.locator(".tx-line", has_text="y = x * 3 + 1").click(timeout=60_000)
        page.keyboard.press("/")
        page.keyboard.type("relu")
        expect(page.locator(".tx-detail")).to_contain_text("relu")
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_contain_text("a kernel: several ops in one pass")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        for key, name in (("1", "Overview"), ("3", "Kernel"), ("4", "Eager")):
            page.keyboard.press(key)
            expect(page.locator(f"[data-lens='{name}']")).to_have_attribute("aria-selected", "true")


WATCHED = """%%torchy --nan --keep 64MiB --compare --compile always
x = torch.linspace(0.1, 1, 600).view(20, 30)
for turn in range(8):
    y = x * 2 - turn / 4
    y = y.log()
    z = torch.where(y > -1, y, x)
    z.sum().item()"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_values_nans_and_eagers_times_are_shown(tmp_path: Path, theme: str) -> None:
    with opened(tmp_path, theme, CELLS[0], WATCHED) as page:
        expect = playwright.expect
        overview = page.locator(".tx-panel")
        expect(overview).to_contain_text(
            "the first NaN is born here: log in turn 1", timeout=60_000
        )
        expect(overview).to_contain_text("all bits are equal")
        expect(page.locator(".tx-tag.tx-equal")).to_contain_text("bits equal")
        expect(page.locator(".tx-note.tx-nan")).to_contain_text("the first NaN")
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.locator(".torchy").screenshot(path=SHOTS / f"explorer-watched-{theme}.png")
        page.locator(".tx-line", has_text="log()").click()
        page.locator("[data-lens=Values]").click()
        values = page.locator(".tx-values")
        expect(values).to_contain_text("f32[20, 30]", timeout=30_000)
        expect(values).to_contain_text("NaN")
        expect(values.locator("canvas")).to_have_count(2)
        before = values.inner_text()
        slider = values.get_by_role("slider")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        expect(values).not_to_contain_text(before, timeout=30_000)
        expect(slider).to_be_focused()
        page.wait_for_timeout(300)
        page.locator(".torchy").screenshot(path=SHOTS / f"explorer-values-{theme}.png")
        page.locator("[data-lens=Eager]").click()
        expect(overview).to_contain_text("Eager ran each op on the same inputs")
