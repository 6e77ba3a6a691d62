"""Random programs. Processes as in ../semantics (see isolation.py there)."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "semantics")]
