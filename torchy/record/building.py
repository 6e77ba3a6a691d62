"""The walker's library: one that came with the package, or compiled for the torch that is installed, and cached."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from torchy.disk import cache_folder
from torchy.versions import OLDEST_TORCH, TORCH

SOURCES = Path(__file__).parent / "walker"
MAIN = SOURCES / "walker.cpp"
FLAGS = (
    "-O2",  # -O1 compiles in two thirds of the time, but recording takes a tenth longer
    "-std=c++20",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-plt",
    "-fopenmp-simd",  # `omp simd` only: loops that are to be done by vectors
    *os.environ.get("TORCHY_CXXFLAGS", "").split(),  # those of a sanitizer, say
)
BUNDLED = Path(__file__).parent / "bundled"  # walkers that came with the package
LINK_FLAGS = ("-shared", "-Wl,-Bsymbolic-functions")  # calls among its own functions are direct


class WalkerUnavailable(RuntimeError):
    """The walker cannot be built or loaded here; the message says what to do about it."""


def _torch_folder() -> Path:
    return Path(torch.__file__).parent


def compiler() -> str | None:
    """Return the C++ compiler that would be used (``$CXX``, else ``g++``, else ``clang++``)."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and shutil.which(name):
            return name
    return None


def compile_command(compiler: str, *options: str) -> list[str]:
    """Return the command that compiles the walker, without what becomes of it."""
    include = _torch_folder() / "include"
    return [
        compiler, *FLAGS,
        "-isystem", str(include),
        "-isystem", str(include / "torch" / "csrc" / "api" / "include"),
        *options, str(MAIN),
    ]  # fmt: skip


def bundled_path(folder: Path | None = None) -> Path:
    """Return where a walker would be that came with the package and fits this torch: its version, commit and C++ ABI."""
    content = _sources()
    macros = _torch_folder() / "include" / "c10" / "macros" / "cmake_macros.h"
    if macros.is_file():
        content.update(macros.read_bytes())
    abi = torch._C._GLIBCXX_USE_CXX11_ABI
    what = f"{torch.version.git_version} {abi} {platform.machine()} {FLAGS} {LINK_FLAGS}"
    content.update(what.encode())
    release = torch.__version__.partition("+")[0]
    return (folder or BUNDLED) / f"walker-{release}-{content.hexdigest()[:16]}.so"


def _sources() -> Any:
    """Begin a digest with the walker's sources."""
    content = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        content.update(source.read_bytes())
    return content


def library_path(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return where the walker for this torch, these sources and this machine is kept."""
    content = _sources()
    content.update(
        f"{torch.__version__} {platform.machine()} {_torch_folder()} {FLAGS} {LINK_FLAGS}".encode()
    )
    return cache_folder(cache_dir) / f"walker-{content.hexdigest()[:16]}.so"


def _intact(library: Path) -> bool:
    """Tell whether a built walker is what was built: its digest lies beside it."""
    digest = library.with_suffix(".sha256")
    try:
        return digest.read_bytes() == hashlib.sha256(library.read_bytes()).hexdigest().encode()
    except OSError:
        return False


def built(cache_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the walker that came with the package, or has been compiled; None if there is neither."""
    return next(filter(_intact, (bundled_path(), library_path(cache_dir))), None)


def is_built(cache_dir: str | os.PathLike[str] | None = None) -> bool:
    """Return True if the walker need not be compiled any more."""
    return built(cache_dir) is not None


def build(cache_dir: str | os.PathLike[str] | None = None, bundled: bool = True) -> Path:
    """Compile the walker if none came with the package and none has been compiled; several processes may start at once.

    Parameters
    ----------
    cache_dir
        Where it is kept.
    bundled
        Whether one that came with the package will do.

    Returns
    -------
    Path
        The shared library.

    Raises
    ------
    WalkerUnavailable
        If this platform or torch is not supported, there is no compiler, or it fails.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise WalkerUnavailable(
            f"Torchy runs on Linux x86-64 so far, not on {sys.platform} {platform.machine()}: "
            "cells run eagerly."
        )
    if TORCH < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise WalkerUnavailable(
            f"Torchy needs torch {oldest} or newer, and this is {torch.__version__}: pip install "
            f"--upgrade 'torch>={oldest}'. Until then cells run eagerly."
        )
    library = library_path(cache_dir)
    found = built(cache_dir) if bundled else library if _intact(library) else None
    if found is not None:
        return found
    return _keep(library, _needed_compiler())


def bundle(folder: Path) -> Path:
    """Compile the walker for a package that is to carry it, and return it: it looks for torch where that has been loaded.

    Raises
    ------
    WalkerUnavailable
        As :func:`build`.
    """
    library = bundled_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _compile(_needed_compiler(), library, from_here=False)
    return library


def _needed_compiler() -> str:
    command = compiler()
    if command is None:
        raise WalkerUnavailable(
            "Torchy compiles its walker on first use and found no C++ compiler: install one "
            "(apt install g++, dnf install gcc-c++, conda install cxx-compiler) or name it in "
            "$CXX. Until then cells run eagerly."
        )
    return command


def _keep(library: Path, command: str) -> Path:
    """Compile the walker into the cache, unless another process has just done so."""
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with open(library.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _intact(library):
                _compile(command, library)
    except OSError as error:
        raise WalkerUnavailable(
            f"Torchy cannot keep its walker in {library.parent}: {error}. Name a folder that can "
            "be written with torchy.enable(cache_dir=...) or $XDG_CACHE_HOME."
        ) from error
    return library


def _compile(command: str, library: Path, from_here: bool = True) -> None:
    torch_libraries = _torch_folder() / "lib"
    where = [f"-Wl,-rpath,{torch_libraries}"] if from_here else []
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        built = Path(scratch) / library.name
        run = subprocess.run(
            [
                *compile_command(command, *LINK_FLAGS), "-o", str(built),
                f"-L{torch_libraries}", "-ltorch_cpu", "-lc10", *where,
            ],
            capture_output=True,
            text=True,
        )  # fmt: skip
        if run.returncode != 0:
            errors = [line for line in run.stderr.splitlines() if "error" in line][:5]
            raise WalkerUnavailable(
                f"{command} could not compile the walker for torch {torch.__version__}:\n"
                + "\n".join(errors or run.stderr.splitlines()[-5:])
            )
        digest = Path(scratch) / "digest"
        digest.write_text(hashlib.sha256(built.read_bytes()).hexdigest())
        os.replace(built, library)
        os.replace(digest, library.with_suffix(".sha256"))
