"""What hatchling needs to know of a wheel that carries walkers: which files they are, and on which systems they load."""

import re
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUNDLED = "build/bundled"  # where `make wheel` has compiled them
# The newest GLIBCXX_3.4.x that systems of a manylinux_2_y have: auditwheel's policies.
LIBSTDCXX = ((25, 28), (28, 31), (29, 34), (30, 35), (33, 39))


class CarriesWalkers(BuildHookInterface):
    """Makes a wheel for Linux x86-64 of what `make wheel` has compiled; without walkers it is one for any platform."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Called before anything is written; ``version`` is the wheel's kind."""
        files = sorted(Path(self.root, BUNDLED).glob("walker-*"))
        if version == "editable" or not files:
            return
        for file in files:
            build_data["force_include"][str(file)] = f"torchy/record/bundled/{file.name}"
        walkers = (file for file in files if file.suffix == ".so")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_{max(map(needed, walkers))}_x86_64"


def needed(library: Path) -> int:
    """Return y of the oldest manylinux_2_y that has the C library and the C++ library that a walker needs."""
    content = library.read_bytes()
    newest = max(int(found) for found in re.findall(rb"GLIBCXX_3\.4\.(\d+)", content))
    return max(
        *(int(found) for found in re.findall(rb"GLIBC_2\.(\d+)", content)),
        next(system for has, system in LIBSTDCXX if newest <= has),
    )
