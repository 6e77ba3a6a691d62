"""What is known beforehand not to have eager's bits is not fused, and the report says why."""

import pytest
import torch

from torchy.codegen.cpu import exactness
from torchy.codegen.cpu.exactness import NAN_POSITION, POSITION, STILL, ZEROS, inexact, no_formula
from torchy.ir.ops import SPECS

F, LONG = torch.float32, torch.int64


def why(name, dtype=F, still="", **literals):
    spec = SPECS[name]
    return inexact(spec, spec.rule(dtype, literals), dtype, frozenset(still.split()))


@pytest.mark.parametrize(
    "name", ["sigmoid", "silu", "softplus", "mish", "elu", "atan2", "sinh", "floor_divide"]
)
def test_what_depends_on_the_position_is_not_exact(name):
    assert why(name) == POSITION


def test_what_is_exact_has_no_reason():
    assert {why(name) for name in ("exp", "add", "where", "tanh_backward", "relu")} == {""}


def test_a_power_is_exact_where_its_exponent_is_special():
    assert {why("pow", exponent=e) for e in (2, 2.0, 0.5, -1)} == {""}
    assert {why("pow", exponent=e) for e in (2.5, 0.3)} == {POSITION}


def test_some_are_exact_for_integers_only():
    assert (why("maximum"), why("maximum", LONG), why("minimum", torch.bool)) == (ZEROS, "", "")


def test_a_literal_may_choose_what_is_not_exact():
    assert why("div_mode", rounding_mode="floor") == POSITION
    assert why("div_mode", rounding_mode="trunc") == ""
    assert (why("lerp", weight=1), why("lerp", weight=0.3)) == (ZEROS, "")
    assert why("hardtanh_backward") == NAN_POSITION


def test_a_product_with_what_does_not_move_is_not_exact():
    assert why("add", still="other") == STILL
    assert {
        why("add", still="other", alpha=1),
        why("add", LONG, "other"),
        why("add", still="self"),
    } == {""}


def test_every_pointwise_op_has_a_formula_or_says_why_not():
    for spec in SPECS.values():
        if spec.kind == "pointwise":
            assert bool(spec.rules) != bool(no_formula(spec)), spec.name


def test_the_tables_name_what_is_there():
    for name, known in exactness._INEXACT.items():
        assert any(known.holds(rule, kind) for rule in SPECS[name].rules for kind in rule.kinds), (
            name
        )
    for name, parameter in exactness._MOVING.items():
        assert parameter in SPECS[name].parameters
    assert exactness._NO_FORMULA.keys() <= SPECS.keys()
