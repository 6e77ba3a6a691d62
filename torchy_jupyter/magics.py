"""The magics ``%%torchy`` and ``%torchy``."""

from __future__ import annotations

import argparse
from pathlib import Path

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import (
    Magics,
    cell_magic,
    line_magic,
    magics_class,
    no_var_expand,
    output_can_be_silenced,
)
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

import torchy
from torchy_jupyter.cell import MARKER, Cells, Options
from torchy_jupyter.explorer import Explorer

NUMERICS = ("exact", "fast")
COMPILE = ("auto", "always", "never")
ALLOWED = "allowed: --numerics exact|fast, --compile auto|always|never, --quiet"
COMMANDS = "on [options] | off | status | last | save FILE.html"


@magics_class
class TorchyMagics(Magics):
    """The magics, and the cells that they switch Torchy on for."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.shell: InteractiveShell = shell
        self.cells = Cells(shell, self.parse)

    def parse(self, line: str) -> Options:
        """Make options of what was written behind ``%%torchy``.

        Raises
        ------
        UsageError
            If there is anything else in it.
        """
        try:
            chosen = parse_argstring(TorchyMagics.run_cell, line)
        except UsageError as error:
            raise UsageError(f"{MARKER}: {error} ({ALLOWED})") from None
        return _options(chosen)

    @magic_arguments("%torchy")
    @argument(
        "--numerics",
        choices=NUMERICS,
        help="exact (default): the same bits as eager. fast: ops may be fused that round differently.",
    )
    @argument(
        "--compile",
        choices=COMPILE,
        help="auto (default): in the background, when it pays. always: wait for kernels. never: interpret.",
    )
    @argument("--quiet", action="store_true", help="Do not show the explorer.")
    @output_can_be_silenced
    @no_var_expand
    @cell_magic("torchy")  # type: ignore[arg-type]  # typed for functions without self
    def run_cell(self, line: str, cell: str) -> None:
        """Run this cell under Torchy: its PyTorch ops are recorded, fused, compiled and run.

        The results are the same, to the last bit. Below the cell's output the explorer shows what
        was recorded, what was fused, the kernels, and why each flush happened.
        """
        # As a cell's first line, an input transformer has taken it; here: run_cell_magic(...).
        self.shell.run_cell(f"{MARKER} {line}\n{cell}").raise_error()

    @magic_arguments("torchy")
    @argument("command", help=COMMANDS)
    @argument("file", nargs="?", help="Where `save` writes the last cell's explorer.")
    @argument("--numerics", choices=NUMERICS, help="As for %%%%torchy.")
    @argument("--compile", choices=COMPILE, help="As for %%%%torchy.")
    @argument("--quiet", action="store_true", help="Do not show the explorer.")
    @no_var_expand
    @line_magic("torchy")  # type: ignore[arg-type]
    def run_command(self, line: str) -> Explorer | None:
        """Switch Torchy on or off for all cells from the next one on, or show and save what it did."""
        try:
            chosen = parse_argstring(TorchyMagics.run_command, line)
        except UsageError as error:
            raise UsageError(f"%torchy: {error} (use: %torchy {COMMANDS}; {ALLOWED})") from None
        options = _options(chosen)
        if chosen.command != "on" and (options.settings or options.quiet):
            raise UsageError(f"%torchy {chosen.command} takes no options")
        if (chosen.file is None) == (chosen.command == "save"):
            raise UsageError(f"%torchy: use: {COMMANDS}")
        match chosen.command:
            case "on":
                self.cells.always = options
            case "off":
                self.cells.always = None
            case "status":
                print(self.status())
            case "last":
                self.cells.show(self._last())
            case "save":
                path = Path(chosen.file.strip("'\"")).expanduser()
                try:
                    self._last().save(path)
                except OSError as error:
                    raise UsageError(f"%torchy save: {error}") from None
                print(f"Torchy: saved {path}")
            case command:
                raise UsageError(f"%torchy: no command {command!r} (use: %torchy {COMMANDS})")
        return None

    def status(self) -> str:
        """Return a few lines: on or off, with which options, and what the last cell did."""
        always = self.cells.always
        if always is None and self.cells.running is not None:
            lines = ["Torchy is on for this cell."]
        elif always is None:
            lines = ["Torchy is off; %%torchy switches it on for a cell, %torchy on for all."]
        else:
            settings = "".join(f" --{name} {value}" for name, value in always.settings.items())
            quiet = " --quiet" if always.quiet else ""
            lines = [f"Torchy is on for all cells{':' * bool(settings or quiet)}{settings}{quiet}"]
        if not torchy.walker_ready():
            lines.append("The walker has not been built yet; the first cell does it.")
        if self.cells.last is not None:
            lines.append(f"Last cell: {self.cells.last.report.summary()}")
        return "\n".join(lines)

    def _last(self) -> Explorer:
        if self.cells.last is None:
            raise UsageError("no cell has run under Torchy yet")
        return self.cells.last


def _options(chosen: argparse.Namespace) -> Options:
    settings = {"numerics": chosen.numerics, "compile": chosen.compile}
    return Options({key: value for key, value in settings.items() if value}, chosen.quiet)
