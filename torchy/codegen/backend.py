"""What a backend is: all that Torchy asks of one. That for the CPU is `torchy.codegen.cpu`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torchy.ir.kernel import KernelForm
from torchy.ir.ops import Numerics
from torchy.ir.words import ViewWords
from torchy.plan.roles import Exactness


class Kernel(Protocol):
    """Compiled code for one kernel form."""

    @property
    def id(self) -> str:
        """What :meth:`Backend.identity` gives for its form."""

    @property
    def address(self) -> int:
        """Where its code begins, for the walker."""

    @property
    def compile_seconds(self) -> float:
        """What compiling took."""

    @property
    def levels(self) -> Mapping[str, Callable[[], str]]:
        """By name, from the most readable one down, what gives its text: ``loop nest``, ``assembly``."""

    @property
    def may_refuse(self) -> bool:
        """Whether there are layouts that it cannot be launched for: its ops are called then."""

    def launch_words(
        self,
        space: ViewWords,
        accesses: Sequence[ViewWords],
        numbers: Sequence[int],
        reduced: Sequence[int] = (),
    ) -> list[int]:
        """Return what the walker needs to launch it, as words of a step: see :mod:`torchy.run.program`.

        Parameters
        ----------
        space
            A view of the sizes that it walks.
        accesses
            A view for each of the form's accesses.
        numbers
            For each of the form's numbers, which of the trace's it is.
        reduced
            The dimensions of the space that the form's reduced axis stands for.
        """


class Backend(Exactness, Protocol):
    """Makes kernels for one kind of device, and knows whether they have eager's bits. Any thread may ask."""

    def facts(self) -> str:
        """Return a text that is the same in all processes where its answers are."""

    def identity(self, form: KernelForm, numerics: Numerics) -> str:
        """Return the id of the kernel that a form gets: equal in all processes on equal machines."""

    def levels(self, form: KernelForm) -> Mapping[str, Callable[[], str]]:
        """Return the levels of a form that are there without compiling it: see :attr:`Kernel.levels`."""

    def compile(self, form: KernelForm, numerics: Numerics) -> Kernel:
        """Compile a form.

        In exact mode, an op that no kernel has had before is compared with eager first.

        Raises
        ------
        CompileError
            If it cannot be compiled, or has an op that is seen not to have eager's bits.
        """
