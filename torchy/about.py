"""What there is to say about this installation: versions, processor, switches, what is kept; and whether it works."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

import llvmlite
import llvmlite.binding as llvm
import torch

from torchy import __version__
from torchy.disk import Shelf, cache_folder
from torchy.face import lazy
from torchy.record import building
from torchy.runtime import KERNELS, PLANS, PLANS_BYTES
from torchy.settings import OFF, switched_off

MIB: Final = 1 << 20
SWITCHES: Final = ("TORCHY", "ATEN_", "MKL_", "ONEDNN_", "DNNL_", "OMP_", "PYTORCH_")
NOTEBOOK: Final = ("ipython", "ipykernel", "ipywidgets", "anywidget", "jupyterlab", "notebook")
Tensor = torch.Tensor


def describe(cache_dir: str | os.PathLike[str] | None = None) -> Iterator[tuple[str, str]]:
    """Yield what a report of a defect should say, as names and texts; nothing is run, compiled or made for it."""
    yield "torchy", f"{__version__}, {Path(__file__).parent}"
    yield "torch", f"{torch.__version__}, {torch.version.git_version[:12]}, {torch.__file__}"
    yield "python", f"{platform.python_version()}, {platform.platform()}"
    yield "llvmlite", f"{llvmlite.__version__}, LLVM {'.'.join(map(str, llvm.llvm_version_info))}"
    yield "notebook", ", ".join(f"{name} {_installed(name)}" for name in NOTEBOOK)
    yield "processor", f"{_processor()}, {llvm.get_host_cpu_name()}, {os.cpu_count()} cores"
    yield "torch uses", machine()
    switches = sorted(item for item in os.environ.items() if item[0].startswith(SWITCHES))
    yield "environment", ", ".join(f"{name}={value}" for name, value in switches) or "no switches"
    yield "walker", _walker(cache_dir)
    yield "kept", f"{cache_folder(cache_dir)}: {'; '.join(kept(cache_dir))}"


def machine() -> str:
    """Return what torch computes with: its instruction set, and how many threads."""
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def kept(cache_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Return what lies in the folder of what is kept, a text for each kind."""
    folder = cache_folder(cache_dir)
    built = [file.stat().st_size for file in folder.glob("walker-*.so")]
    found = [f"walkers, one for each torch and Torchy: {len(built)}, {sum(built) / MIB:.1f} MiB"]
    for name, shelf in shelves(cache_dir).items():
        sizes = [status.st_size for _, status in shelf.files()]
        limit = shelf.capacity // MIB
        found.append(f"{name}: {len(sizes)}, {sum(sizes) / MIB:.1f} MiB of at most {limit} MiB")
    return found


def shelves(cache_dir: str | os.PathLike[str] | None = None) -> Mapping[str, Shelf]:
    """Return what is kept for the processes to come, besides walkers, by name."""
    folder = cache_folder(cache_dir)
    return {"kernels": Shelf(folder / KERNELS), "plans": Shelf(folder / PLANS, PLANS_BYTES)}


def self_test(cache_dir: str | os.PathLike[str] | None = None) -> tuple[str, bool]:
    """Run an op of each kind as a kernel, and by eager; return what came of it in words, and whether all bits agree.

    ``cache_dir`` is that of the process, as with the first :func:`torchy.enable`.

    Raises
    ------
    WalkerUnavailable
        If the walker cannot be built or loaded here.
    """
    if switched_off():
        return OFF, True
    begin = time.perf_counter()
    tried = {name: _tried(name, cache_dir) for name in KINDS}
    compiled = sum(found.by_kernel for found in tried.values())
    wrong = [f"{name}: {found.wrong}" for name, found in tried.items() if found.wrong]
    notes = [f"{name}: {found.events}" for name, found in tried.items() if found.events]
    what = f"{len(KINDS)} kinds of ops in {time.perf_counter() - begin:.1f} s, {compiled} of them by kernels"
    well = not wrong and compiled > 0
    verdict = "eager's bits" if well else "; ".join(wrong) or "no kernel was run"
    return "; ".join([f"{verdict} ({what})", *notes]), well


class _Tried(NamedTuple):
    """What is wrong with a kind of ops, if anything; whether a kernel ran; what the report tells of kernels that did not."""

    wrong: str
    by_kernel: bool = False
    events: str = ""


def _tried(name: str, cache_dir: str | os.PathLike[str] | None) -> _Tried:
    x = torch.linspace(-4, 4, 37 * 53).reshape(37, 53)
    expected, operand = KINDS[name](x.clone()), x.clone()
    try:
        with lazy(compile="always", cache_dir=cache_dir) as session:
            found = KINDS[name](operand)
    except building.WalkerUnavailable:
        raise
    except Exception as error:  # a defect, which this is to find
        return _Tried(f"{type(error).__name__}: {error}")
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return _Tried("another dtype or shape than eager's")
    if found.stride() != expected.stride():
        return _Tried("other strides than eager's")
    if not torch.equal(_bytes(found), _bytes(expected)):
        return _Tried("other bits than eager's")
    report = session.report
    by_kernel = any(group.as_kernel for trace in report.traces for group in trace.groups)
    return _Tried("", by_kernel, "; ".join(f"{e.kind}: {e.text}" for e in report.events))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)


def _written(x: Tensor) -> Tensor:
    x[1:, 2:].mul_(0.5).add_(x[:-1, :-2])
    return x


def _trained(x: Tensor) -> Tensor:
    weight = x.detach().requires_grad_()
    (weight.tanh() * weight).mean().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    return weight.grad * 2


KINDS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "arithmetic": lambda x: (x * 2 + 1) / (x - 0.3),
    "functions": lambda x: (x.exp() + x.abs().log()) * x.sin(),
    "activations": lambda x: torch.sigmoid(x) * torch.nn.functional.silu(x + 1),
    "comparisons": lambda x: torch.where(x > 1, x, -x).clamp(max=3),
    "integers": lambda x: (x * 100).to(torch.int32) // 7,
    "bfloat16": lambda x: x.bfloat16() * 1.5 + 1,
    "doubles": lambda x: x.double() * 1.1 - x,
    "rows": lambda x: torch.softmax(x * 0.5, -1) + 1,
    "columns": lambda x: (x * x).sum(0) * 2,
    "all elements": lambda x: (x - 1).abs().mean() * 2,
    "layouts": lambda x: x.t() * x[:, :37].t()[:1, :] + 1,
    "writes": _written,
    "calls": lambda x: (x @ x.t() + 1).relu(),
    "gradients": _trained,
}


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is not there"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _walker(cache_dir: str | os.PathLike[str] | None) -> str:
    if (library := building.built(cache_dir)) is not None:
        return f"built, {library}"
    compiler = building.compiler()
    return "not built yet; " + (f"compiler: {compiler}" if compiler else "no C++ compiler found")
