"""A saved explorer in a real browser: each view, the keys, light and dark, narrow and wide; no kernel, no network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
SCRIPT = """\
import sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
shell = InteractiveShell.instance()
with capture_output():
    shell.run_cell("import torch\\n%load_ext torchy_jupyter")
    shell.run_cell(sys.argv[2], store_history=True)
import torchy_jupyter
torchy_jupyter.last_explorer().save(sys.argv[1])
"""
CELL = """\
%%torchy --compile always
x = torch.linspace(0, 1, 4096).reshape(64, 64)
dropped = x * 5
dropped = None
y = torch.nonzero(x)
for step in range(40):
    z = (x * step + 1).tanh()
    w = z @ x
    total = float(w.sum())
raise ValueError("</script><b>no more</b>")"""
LENSES = ("Overview", "Graph", "Kernel", "Eager")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def save(path: Path, cell: str) -> None:
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), cell], check=True, cwd=ROOT, timeout=120
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "trace.html"
    save(path, CELL)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:  # type: ignore[name-defined]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(
    params=[(1400, "light"), (900, "dark"), (600, "light")], ids=lambda size: f"{size[0]} {size[1]}"
)
def page(
    browser: playwright.Browser,  # type: ignore[name-defined]
    saved: Path,
    request: pytest.FixtureRequest,
) -> Iterator[playwright.Page]:  # type: ignore[name-defined]
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 700}, color_scheme=scheme)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request", lambda asked: errors.append(asked.url) if asked.url.startswith("http") else None
    )
    page.goto(saved.as_uri())
    yield page
    page.close()
    assert not errors


def drawn(page: playwright.Page) -> int:  # type: ignore[name-defined]
    """Return how many of the graph's pixels are not empty."""
    page.wait_for_timeout(200)
    return int(
        page.locator(".tx-graph canvas").evaluate(
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 == 3 && v).length"
        )
    )


def test_each_view_shows_something(page: playwright.Page) -> None:  # type: ignore[name-defined]
    expect = playwright.expect
    expect(page.locator(".tx-fold")).to_contain_text("ValueError: </script><b>no more</b>")
    expect(page.locator(".tx-lead")).to_contain_text("80 kernels and 40 calls, in 40 flushes")
    expect(page.locator(".tx-list")).to_contain_text("nonzero ran as eager")
    page.locator("[data-lens=Graph]").click()
    assert drawn(page) > 1000
    page.get_by_role("button", name="ops", exact=True).click()
    assert drawn(page) > 1000
    page.locator("[data-lens=Kernel]").click()
    expect(page.locator(".tx-src")).to_contain_text("for each")
    for level, text in (("LLVM IR", "define"), ("assembly", "ret"), ("as recorded", "mul(")):
        page.get_by_role("radio", name=level).click()
        expect(page.locator(".tx-src")).to_contain_text(text)
    page.locator(".tx-fold").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")  # to the first flush
    page.get_by_role("radio", name="dead removed").click()
    expect(page.locator(".tx-dead")).to_contain_text("mul(")
    page.locator("[data-lens='Eager']").click()
    expect(page.locator(".tx-table")).to_contain_text("tanh")


def test_keys_and_clicks_move_one_selection(page: playwright.Page) -> None:  # type: ignore[name-defined]
    expect = playwright.expect
    detail = page.locator(".tx-detail")
    page.locator("[data-lens=Overview]").focus()
    for key in ("ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    expect(detail).to_contain_text("›")
    chosen = detail.inner_text()
    for number, name in enumerate(LENSES, 1):
        page.keyboard.press(str(number))
        expect(page.locator(f"[data-lens='{name}']")).to_have_attribute("aria-selected", "true")
        assert detail.inner_text() == chosen
    page.locator(".tx-bar.tx-kernel").first.dispatch_event("click")  # it is a pixel wide
    expect(detail).to_contain_text("kernel A")
    page.keyboard.press("/")
    page.keyboard.type("tanh")
    expect(detail).to_contain_text("tanh")
    page.keyboard.press("Escape")
    before = drawn(page)
    page.keyboard.press("+")
    assert drawn(page) != before
    page.keyboard.press("0")
    assert drawn(page) == before
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator(".tx-body")).to_be_hidden()


def test_rows_below_lines_tell_of_flushes_and_errors(page: playwright.Page) -> None:  # type: ignore[name-defined]
    flags = page.locator(".tx-note.tx-flush")
    assert flags.count() >= 1
    playwright.expect(page.locator(".tx-note.tx-error")).to_contain_text("</script>")
    playwright.expect(page.locator(".tx-lines")).to_contain_text("outside of ops")


def test_nothing_sticks_out(page: playwright.Page) -> None:  # type: ignore[name-defined]
    width = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert width <= 0
