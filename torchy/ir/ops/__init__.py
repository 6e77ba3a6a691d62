"""The op table: what Torchy knows of each op."""

from torchy.ir.ops.spec import FUSED_DTYPES, OpSpec, Rule, dtype_kind, fusable
from torchy.ir.ops.table import OPS

_SPECS = {spec.name: spec for spec in OPS}


def spec_of(name: str) -> OpSpec | None:
    """Return the spec with this functional base name (``add``), None if there is none."""
    return _SPECS.get(name)


__all__ = ["FUSED_DTYPES", "OpSpec", "Rule", "dtype_kind", "fusable", "spec_of"]
