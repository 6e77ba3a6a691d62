"""What hatchling needs to know of a wheel that carries walkers: which files they are, and on which systems they load."""

import re
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUNDLED = "torchy/record/bundled"


class CarriesWalkers(BuildHookInterface):
    """Makes a wheel for Linux x86-64 of what `make wheel` has compiled; without walkers it is one for any platform."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Called before anything is written; ``version`` is the wheel's kind."""
        walkers = sorted(Path(self.root, BUNDLED).glob("walker-*.so"))
        if version == "editable" or not walkers:
            return
        build_data["artifacts"].append(f"/{BUNDLED}/walker-*")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_{max(map(newest_glibc, walkers))}_x86_64"


def newest_glibc(library: Path) -> int:
    """Return x of the newest GLIBC_2.x of which a library needs something."""
    return max(int(found) for found in re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes()))
