"""What a program is."""

from __future__ import annotations

from collections.abc import Callable

# Does what a cell or an iteration does, and looks at it; what it returns can be compared exactly.
Step = Callable[[], object]
