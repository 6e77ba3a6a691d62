"""What Python is asked about an op: once for each signature, not for each place."""

import pytest
import torch
from recording import counters, did, turn

import torchy
from torchy.record import policy
from torchy.record.policy import LayoutRule, OpClass, classify


def test_the_policy_is_asked_once_for_a_signature_and_not_for_each_place():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        done = did(session, lambda: [x * 2.0, x * 3.0, x * 4.0, x * 5.0])
    assert (done.recorded, done.places, done.policy_calls, done.layouts) == (4, 4, 1, 1)


def test_the_policy_is_not_asked_again_in_another_session():
    x = torch.randn(4)
    with torchy.lazy(compile="never") as session:
        assert did(session, lambda: x.exp()).policy_calls == 1
    with torchy.lazy(compile="never") as session:
        assert did(session, lambda: x.exp()).policy_calls == 0
        assert session.counters["recorded"] == 1


SIGNATURES = {
    "another dtype": (lambda x: x.sum(0), lambda x: x.double().sum(0), 2),  # the copy as well
    "another rank": (lambda x: x.exp(), lambda x: x[0].exp(), 1),
    "another constant": (lambda x: x.sum(0), lambda x: x.sum(1), 1),
    "another kind of number": (lambda x: x * 2.0, lambda x: x * 2, 1),
    "a number that counts": (lambda x: torch.add(x, x, alpha=2), lambda x: torch.add(x, x), 1),
    "another overload": (lambda x: x.sum(0), lambda x: x.sum(), 1),
    "other sizes": (lambda x: x.exp(), lambda x: x[:2].exp(), 0),
    "other strides": (lambda x: x.sum(0), lambda x: x.t().sum(0), 0),
    "another number": (lambda x: x * 2.0, lambda x: x * 3.0, 0),
    "an operand that is pending": (lambda x: (x.neg(), x.exp()), lambda x: x.neg().exp(), 0),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_what_makes_a_signature(case):
    one, other, calls = SIGNATURES[case]
    x = torch.randn(4, 4)
    with torchy.lazy(compile="never") as session:
        assert turn(session, lambda: one(x)).policy_calls >= 1
        assert turn(session, lambda: one(x)).policy_calls == 0
        assert turn(session, lambda: other(x)).policy_calls == calls
        assert turn(session, lambda: other(x)).policy_calls == 0


def test_gradients_are_part_of_a_signature_of_calls_only():
    w = torch.randn(3, 3, requires_grad=True)
    with torchy.lazy(compile="never") as session:
        turn(session, lambda: (w.exp(), w.sum(0)))
        with torch.no_grad():
            assert turn(session, lambda: w.exp()).policy_calls == 0
            assert turn(session, lambda: w.sum(0)).policy_calls == 1


def test_what_runs_now_is_no_place():
    x = torch.rand(8)
    with torchy.lazy(compile="never") as session:
        done = did(session, lambda: (x.median(), x.mode(), x.unique()))
    assert done.run_now >= 3
    assert done.recorded == done.places == done.policy_calls == 0


def test_views_are_counted_if_they_are_pending():
    x = torch.randn(4, 4)
    with torchy.lazy(compile="never") as session:
        done = did(session, lambda: (x.view(-1), x.detach(), x.as_strided((2,), (1,))))
        assert (done.views, done.places, done.run_now) == (0, 0, 0)
        y = x * 2
        done = did(session, lambda: (y.view(-1), y.detach(), y.as_strided((2,), (1,))))
        assert (done.views, done.places, done.run_now) == (3, 0, 0)
        assert did(session, lambda: torch.empty_like(y)).views == 0


def test_one_element_that_is_not_pending_runs_now():
    number, x = torch.tensor(2.0), torch.randn(3)
    with torchy.lazy(compile="never") as session:
        assert did(session, lambda: number * 2)[:3] == (0, 1, 0)
        assert did(session, lambda: x.sum() * 2)[:3] == (2, 0, 2)


def test_ops_on_lists_descend_to_plain_ops():
    tensors = [torch.randn(3), torch.randn(4)]
    with torchy.lazy(compile="never") as session:
        done = did(session, lambda: torch._foreach_mul(tensors, 2.0))
    assert (done.recorded, done.run_now) == (2, 0)


def test_an_op_that_raises_is_never_recorded():
    x, y = torch.randn(3), torch.randn(4)
    with torchy.lazy(compile="never") as session:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="size of tensor"):
                x + y
        assert counters(session).recorded == 0
        assert counters(session).places == counters(session).policy_calls == 1
        assert turn(session, lambda: x + x).recorded == 1  # the same signature


def test_numbers_that_a_dtype_cannot_hold_run_now_and_others_do_not():
    x = torch.randn(3)
    with torchy.lazy(compile="never") as session:
        done = [turn(session, lambda n=n: x * n) for n in (2.0, 1e300, 3.0, float("inf"))]
    assert [d.recorded for d in done] == [1, 0, 1, 1]
    assert [d.run_now for d in done] == [0, 1, 0, 0]


def test_an_op_whose_results_no_rule_tells_is_run_once_for_each_layout():
    x = torch.randn(4, 4)
    with torchy.lazy(compile="never") as session:
        done = [
            turn(session, lambda y=y: torch.var_mean(y, 0)) for y in (x, x, x.t(), x.t(), x[:2], x)
        ]
    assert [(d.recorded, d.run_now, d.layouts) for d in done] == [
        *[(0, 1, 1), (1, 0, 0)] * 2,
        (0, 1, 1),
        (1, 0, 0),
    ]
    assert [d.policy_calls for d in done] == [1, 0, 0, 0, 0, 0]


def test_modes_for_tests_record_nothing():
    x = torch.randn(3)
    for mode, carried in (("pass_through", False), ("carry", True)):
        with torchy.lazy(mode=mode) as session:
            y = x * 2
            assert counters(session)[:3] == (0, 0, 0)
            assert not torchy.is_pending(y)
            assert torch._C._dispatch_keys(y).has(torch._C.DispatchKey.PrivateUse3) == carried


CLASSES = {
    "aten::add.Tensor": OpClass.DEFER,
    "aten::add_.Tensor": OpClass.DEFER,
    "aten::sum.dim_IntList": OpClass.DEFER,
    "aten::mm": OpClass.DEFER,
    "aten::t": OpClass.METADATA,
    "aten::slice.Tensor": OpClass.METADATA,
    "aten::empty_like": OpClass.METADATA,
    "aten::_foreach_add.Scalar": OpClass.DESCEND,
    "aten::_foreach_add.Tensor": OpClass.RUN_NOW,  # reads the tensor
    "aten::median": OpClass.RUN_NOW,
    "aten::multinomial": OpClass.RUN_NOW,
    "aten::bernoulli": OpClass.DESCEND,
    "aten::bernoulli_.float": OpClass.DRAW,
    "aten::bernoulli.out": OpClass.RUN_NOW,
    "aten::index_put_": OpClass.MASK,
    "aten::_safe_softmax": OpClass.DESCEND,
    "aten::copy": OpClass.RUN_NOW,
    "aten::_lazy_clone": OpClass.RUN_NOW,
    "torchvision::nms": OpClass.RUN_NOW,
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_class_of_an_op(name):
    assert classify(name).op_class == CLASSES[name]


def test_which_arguments_are_no_part_of_the_place():
    add = classify("aten::add.Tensor")  # self, other, alpha
    assert add.pointwise and add.rule == LayoutRule.ITERATE
    assert (add.runtime & 0b110, add.unless_one) == (0b110, 0b100)
    total = classify("aten::sum.dim_IntList")
    assert not total.pointwise and total.runtime == 0
    assert classify("aten::masked_fill.Scalar").rule == LayoutRule.CONTIGUOUS
    assert classify("aten::clone").rule == LayoutRule.PRESERVE
    assert classify("aten::_lazy_clone").hidden == 1


def test_constants_that_a_plan_cannot_express_run_now():
    x = torch.randn(4, 4).t()
    with torchy.lazy(compile="never") as session:
        y = x.clone(memory_format=torch.contiguous_format)
        z = x.clone()
        assert (y.stride(), z.stride()) == ((4, 1), (1, 4))
        assert counters(session)[:2] == (2, 0)
        ints = torch.arange(1, 4)
        assert did(session, lambda: ints // 2)[:2] == (0, 1)  # dividing by 0 raises
        assert did(session, lambda: ints / 2)[:2] == (1, 0)


def test_a_policy_that_raises_has_the_op_run_now_and_is_told():
    policy.allow = float  # raises, in no code of the program's
    x = torch.arange(3.0)
    with torchy.lazy(compile="never") as session:
        y = x.clone()
        assert not torchy.is_pending(y)
        assert counters(session)[:3] == (0, 1, 1)
    (event,) = session.report.events
    assert event.kind == "policy raised" and "TypeError" in event.text
    assert y.tolist() == [0.0, 1.0, 2.0]


def test_the_policy_sees_the_op_as_it_came():
    seen = []
    allow = policy.allow

    def watching(place):
        seen.append(place)
        return allow(place)

    policy.allow = watching
    x = torch.randn(3, 4)
    with torchy.lazy(compile="never"):
        y = torch.remainder(torch.remainder(x, x[0]), 3.5) + 1
    assert [place.name for place in seen] == ["aten::remainder.Tensor", "aten::remainder.Scalar"]
    one, other = seen
    float32 = 6  # as the walker has it
    assert one.operands == [(0, 0, float32, 2), (1, 0, float32, 1)]
    assert other.operands == [(2, 1, float32, 2)] and other.dtypes == [torch.float32]
    assert other.arguments[1] == 3.5
    assert one.pattern == other.pattern == []  # of a step nothing is known of results
    del y


def test_the_policy_is_asked_only_where_it_has_a_say():
    for name in ["clone", "_to_copy", "angle", "remainder.Scalar", "floor_divide", "fill_.Tensor"]:
        assert classify(f"aten::{name}").asks, name
    for name in ["add.Tensor", "mm", "fill_.Scalar", "sum", "exp_", "where.self"]:
        assert not classify(f"aten::{name}").asks, name


def test_what_is_seen_before_a_backend_is_chosen_takes_its_arguments_as_they_are():
    for name in ["zeros", "full", "randn", "arange.start", "eye", "randint", "copy_", "clone"]:
        lines = torch._C._dispatch_dump(f"aten::{name}").splitlines()
        (active,) = [line for line in lines if line.startswith("BackendSelect: ")]
        assert active.startswith("BackendSelect: torchy "), active  # a boxed one names its file


def test_products_mind_the_precision_of_float32_whatever_their_form():
    products = {"mm", "addmm", "addmm_", "bmm", "baddbmm_", "mv", "addmv_", "dot", "vdot", "addr_"}
    for name in [*products, "mm.out", "addmm.out", "convolution", "convolution_backward"]:
        assert classify(f"aten::{name}").minds_precision, name
    for name in ["add.Tensor", "add_.Tensor", "sum", "_softmax", "native_layer_norm", "cat"]:
        assert not classify(f"aten::{name}").minds_precision, name
    assert classify("aten::median").minds_precision  # nobody knows
