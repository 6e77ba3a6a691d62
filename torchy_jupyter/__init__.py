"""Torchy in a notebook: ``%load_ext torchy_jupyter``, then ``%%torchy`` on top of a cell."""

from __future__ import annotations

from IPython.core.getipython import get_ipython
from IPython.core.interactiveshell import InteractiveShell

import torchy
from torchy_jupyter.explorer import Explorer
from torchy_jupyter.magics import TorchyMagics

__all__ = ["Explorer", "last_explorer", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics and hooks: IPython calls it for ``%load_ext torchy_jupyter``."""
    off = torchy.switched_off()  # first: what the environment says may be an error
    magics = TorchyMagics(shell)
    shell.register_magics(magics)
    magics.cells.install()
    if off:
        print(magics.status())


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Undo everything: IPython calls it for ``%unload_ext torchy_jupyter``."""
    magics = _magics(shell)
    if magics is not None:
        magics.cells.remove()
        manager = shell.magics_manager
        del manager.registry[TorchyMagics.__name__]
        for kind in ("line", "cell"):
            manager.magics[kind].pop("torchy", None)


def last_explorer() -> Explorer | None:
    """Return the explorer of the last cell that ran under Torchy; its ``report`` is that cell's."""
    shell = get_ipython()
    magics = None if shell is None else _magics(shell)
    return None if magics is None else magics.cells.last


def _magics(shell: InteractiveShell) -> TorchyMagics | None:
    magics = shell.magics_manager.registry.get(TorchyMagics.__name__)
    return magics if isinstance(magics, TorchyMagics) else None
