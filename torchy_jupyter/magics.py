"""The magics ``%%torchy`` and ``%torchy``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
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
from torchy.about import machine
from torchy.settings import OFF, bytes_of, names_of
from torchy_jupyter.cell import MARKER, Cells, Options
from torchy_jupyter.explorer import Explorer

F = TypeVar("F", bound=Callable[..., Any])

NUMERICS = ("exact", "fast")
COMPILE = ("auto", "always", "never")
ALLOWED = (
    "allowed: --numerics exact|fast, --compile auto|always|never, --max-ops N, --max-bytes SIZE, --run-dead, --nan,"
    " --keep SIZE, --compare, --never OPS, --quiet"
)
COMMANDS = "on [options] | off | status | last | save FILE.html | receipt [[--check] FILE]"


def count(text: str) -> int:
    """Return a number of ops."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def size(text: str) -> int:
    """Return a number of bytes, from ``256MiB``, ``1.5 GB`` or ``4096``."""
    try:
        return bytes_of(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def ops(text: str) -> tuple[str, ...]:
    """Return names of ops, from ``add,_softmax``."""
    try:
        return names_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def options(function: F) -> F:
    """Add the options that ``%%torchy`` and ``%torchy on`` have."""
    for add in (
        argument(
            "--numerics",
            choices=NUMERICS,
            help="exact (default): the same bits as eager. fast: ops may be fused that round differently.",
        ),
        argument(
            "--compile",
            choices=COMPILE,
            help="auto (default): in the background, when it pays. always: wait for kernels. never: interpret.",
        ),
        argument(
            "--max-ops",
            type=count,
            help="Flush when so many ops have been recorded (default 1024).",
        ),
        argument(
            "--max-bytes",
            type=size,
            help="Memory beyond eager's that a trace may take (default 16MiB).",
        ),
        argument(
            "--nan",
            action="store_true",
            help="Find where the first NaN or infinity is born.",
        ),
        argument(
            "--keep",
            type=size,
            metavar="SIZE",
            help="Keep what flushes are given (256MiB, say): any value can be asked for afterwards.",
        ),
        argument(
            "--compare",
            action="store_true",
            help="Run each flush once more by eager: times, and whether the bits are equal.",
        ),
        argument(
            "--never",
            type=ops,
            metavar="OPS",
            help="Ops that are run at once, by their names in the explorer: add,_softmax.",
        ),
        argument(
            "--run-dead", action="store_true", help="Run ops, too, whose results nobody can reach."
        ),
        argument("--quiet", action="store_true", help="Do not show the explorer."),
    ):
        function = add(function)
    return function


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
    @options
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
    @argument("command", nargs="?", default="status", help=f"{COMMANDS}; default: status")
    @argument(
        "file", nargs="?", help="What `save` and `receipt` write, or `receipt --check` reads."
    )
    @argument("--check", metavar="FILE", help="`receipt`: compare the cells to come with a file.")
    @options
    @no_var_expand
    @line_magic("torchy")  # type: ignore[arg-type]
    def run_command(self, line: str) -> Explorer | None:
        """Switch Torchy on or off for all cells from the next one on, or show and save what it did."""
        try:
            chosen = parse_argstring(TorchyMagics.run_command, line)
        except UsageError as error:
            raise UsageError(f"%torchy: {error} (use: %torchy {COMMANDS}; {ALLOWED})") from None
        given = _options(chosen)
        if chosen.command != "on" and (given.settings or given.quiet):
            raise UsageError(f"%torchy {chosen.command} takes no options")
        needs_file, may_have = chosen.command == "save", chosen.command == "receipt"
        if (needs_file and chosen.file is None) or (
            chosen.file is not None and not (needs_file or may_have)
        ):
            raise UsageError(f"%torchy: use: {COMMANDS}")
        if chosen.check is not None and (chosen.command != "receipt" or chosen.file is not None):
            raise UsageError("%torchy: use --check so: %torchy receipt --check FILE")
        match chosen.command:
            case "on":
                off = torchy.switched_off()
                self.cells.always = given
                print(
                    self.status()
                    if off
                    else f"{self._on(given)} From the next one on; %torchy off ends it."
                )
            case "off":
                self.cells.always = None
            case "status":
                print(self.status())
            case "last":
                self.cells.show(self._last())
            case "save":
                path = Path(chosen.file.strip("'\"")).expanduser()
                if path.is_dir():
                    raise UsageError(f"%torchy save: {path} is a folder: name a file in it")
                if path.suffix not in (".html", ".htm"):
                    path = path.with_name(f"{path.name}.html")
                try:
                    self._last().save(path)
                except OSError as error:
                    raise UsageError(f"%torchy save: {error}") from None
                print(f"Torchy: saved {path}")
            case "receipt":
                print(self._receipt(chosen.check or chosen.file, chosen.check is not None))
            case command:
                raise UsageError(f"%torchy: no command {command!r} (use: %torchy {COMMANDS})")
        return None

    def _receipt(self, file: str | None, check: bool) -> str:
        """Begin a receipt for the cells to come, begin to check one, or end either; return what there is to say."""
        cells = self.cells
        if torchy.switched_off():
            raise UsageError(f"%torchy receipt: {OFF}")
        if file is None:
            if cells.receipt is None:
                raise UsageError("%torchy receipt: there is none: %torchy receipt FILE begins one")
            said, cells.receipt = cells.receipt.close(), None
            return f"Torchy: {said}"
        path = Path(file.strip("'\"")).expanduser()
        try:
            receipt = torchy.Receipt(path, check=check, name=cells.name_of)
        except (OSError, ValueError) as error:
            raise UsageError(f"%torchy receipt: {error}") from None
        before = "" if cells.receipt is None else f"Torchy: {cells.receipt.close()}\n"
        cells.receipt = receipt
        does = f"compared with {path}" if check else f"noted in {path}"
        return f"{before}Torchy: cells from the next one on are {does}; %torchy receipt ends it."

    def status(self) -> str:
        """Return a few lines: on or off, with which options, and what the last cell did."""
        always = self.cells.always
        if torchy.switched_off():
            return f"Torchy is off: {OFF}."
        if always is None and self.cells.running is not None:
            lines = ["Torchy is on for this cell."]
        elif always is None:
            lines = ["Torchy is off; %%torchy switches it on for a cell, %torchy on for all."]
        else:
            lines = [self._on(always)]
        if not torchy.walker_ready():
            lines.append("The walker has not been built yet; the first cell does it.")
        lines.append(f"Torchy {torchy.__version__}, torch {torch.__version__}: {machine()}.")
        if self.cells.receipt is not None:
            does = "compared with" if self.cells.receipt.checks else "noted in"
            lines.append(f"Cells are {does} {self.cells.receipt.path}.")
        if self.cells.last is not None:
            lines.append(f"Last cell: {self.cells.last.report.summary()}")
        return "\n".join(lines)

    @staticmethod
    def _on(given: Options) -> str:
        """Tell with which options Torchy is on for all cells."""
        names = {name: name.replace("_", "-") for name in given.settings}

        def written(value: object) -> str:
            return ",".join(value) if isinstance(value, tuple) else str(value)

        said = [
            " --run-dead"
            if name == "skip_dead"
            else f" --{names[name]}" + (f" {written(value)}" if value is not True else "")
            for name, value in given.settings.items()
        ]
        text = "".join(said) + " --quiet" * given.quiet
        return f"Torchy is on for all cells{':' * bool(text)}{text}."

    def _last(self) -> Explorer:
        if self.cells.last is None:
            raise UsageError("no cell has run under Torchy yet")
        return self.cells.last


def _options(chosen: argparse.Namespace) -> Options:
    names = ("numerics", "compile", "max_ops", "max_bytes")
    settings = {name: getattr(chosen, name) for name in names}
    settings |= {"keep": chosen.keep, "never": chosen.never}
    settings |= {name: True for name in ("nan", "compare") if getattr(chosen, name)}
    if chosen.run_dead:
        settings["skip_dead"] = False
    return Options(
        {name: value for name, value in settings.items() if value is not None}, chosen.quiet
    )
