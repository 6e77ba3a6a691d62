"""Which kernels serve torch's ops on the CPU: its own, or what a program or an extension has put in their place."""

from __future__ import annotations

from collections.abc import Callable

import torch

# what the dispatcher may take for a tensor on the CPU
SERVING = frozenset(
    {
        "CPU",
        "CompositeExplicitAutograd",
        "CompositeExplicitAutogradNonFunctional",
        "CompositeImplicitAutograd",
    }
)
# and what may be in front of that
COMPARED = SERVING | {"Autograd", "AutogradCPU"}
OWN = "/ATen/"  # where torch's own kernels are registered


class Served:
    """What is known of ops' kernels, and whether that may have changed since.

    Parameters
    ----------
    renew
        Called with the name of each op whose kernels have changed.
    """

    def __init__(self, renew: Callable[[str], None]) -> None:
        self._renew = renew
        self._loaded = 0  # shared libraries
        self.unchecked = True  # set where Python has registered something
        self._registered: frozenset[str] = frozenset()  # by Python, as namespace/op/key
        self._kernels: dict[str, str] = {}

    def by_torch(self, name: str) -> bool:
        """Tell whether an op's kernels on the CPU are all torch's own; remembers them."""
        kernels = self._kernels[name] = kernels_of(name)
        serving = [line for line in kernels.splitlines() if line.partition(":")[0] in SERVING]
        return all(OWN in line for line in serving)

    def check(self, loaded: int) -> None:
        """Renew the ops whose kernels have changed since the last check.

        Parameters
        ----------
        loaded
            How many shared libraries the process has ever loaded: one may bring kernels.
        """
        same = loaded == self._loaded and len(torch.library._impls) == len(self._registered)
        if same and not self.unchecked:
            return
        self.unchecked = False
        registered = frozenset(torch.library._impls)
        keys = [key.split("/") for key in registered ^ self._registered]
        changed = {f"{namespace}::{op}" for namespace, op, key in keys if key != "Meta"}
        changed.update(
            name for name, kernels in list(self._kernels.items()) if kernels_of(name) != kernels
        )
        self._loaded, self._registered = loaded, registered
        for name in changed:
            self._renew(name)


def kernels_of(name: str) -> str:
    """Return the dispatcher's lines on the kernels that may serve an op on the CPU, and autograd's."""
    lines = torch._C._dispatch_dump(name).splitlines()
    return "\n".join(line for line in lines if line.partition(":")[0] in COMPARED)
