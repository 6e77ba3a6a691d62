"""Rule 1, where rows are reduced in a kernel: eager's bits, whatever lengths, layouts and values come, at the same lines."""

import pytest
import torch
import torch.nn.functional as F
from sameness import program, quiet, wait_for_kernels

LENGTHS = (2, 3, 5, 7, 8, 9, 16, 17, 31, 40, 100, 513, 3000)


def softmax(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def log_softmax(x):
    y = x - x.amax(-1, keepdim=True)
    return y - y.exp().sum(-1, keepdim=True).log()


def layer_norm(x):
    d = x - x.mean(-1, keepdim=True)
    return d / torch.sqrt((d * d).mean(-1, keepdim=True) + 1e-5) * x[0] + 0.5


def rms_norm(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def scaled(x):
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low), low, high


def lengths(x):
    return (x * x).sum(-1).sqrt() + x.amax(-1)


def of_rows_only(x):
    s = (x + 1).sum(-1, keepdim=True)
    s.mul_(2).sub_(s.exp().tanh())
    return s, s.clone() + x.abs().mean(-1, keepdim=True)


def in_place(x):
    y = x * 2
    m = y.amax(-1, keepdim=True)
    y.sub_(m)
    m += y.sum(-1, keepdim=True)
    y.div_(m)
    return y, m


def truths(x):
    return (x > x.mean(-1, keepdim=True)), (x == x.amax(-1, keepdim=True)).logical_not()


def other_rows(x):
    y = x * x
    return (
        y.sum(0),
        y.sum(-1),
        y - y.amax(0, keepdim=True),
        y.sum(-1, keepdim=True) + y.sum(0, keepdim=True),
    )


def kept_apart(x):
    """One sum is kept, one is dropped, one is looked at."""
    y = x.exp() * 0.5
    a, b = y.sum(-1), y.mean(-1, keepdim=True)
    c = (y - b).abs().sum(-1)
    del b
    return c.tolist(), a


def with_single_elements(x):
    half, m = torch.tensor(0.5), x.amax(-1, keepdim=True)
    return (
        x.sum(-1) * half,
        torch.where(m > 0, m, 0.0),
        x / (x.sum(-1, keepdim=True) * half),
        m.exp().log() + half,
    )


def of_single_elements(x):
    s = (x * x).sum()
    return s.sum(-1), (s + 1).mean(-1, keepdim=True), s.amax(0), x - s.amin(0)


def softmaxes(x):
    """Those of torch, between other ops: what they take, and what they make, has an element for each."""
    scores = x * 0.5 + x[0]
    p = torch.softmax(scores, -1)
    q = torch.log_softmax(scores - 1, -1)
    return p * x.abs(), (p * q).sum(-1), q.exp(), torch.softmax(q, -1).sum(-1, keepdim=True) * p


def places(x):
    """Where the greatest and the least are, and which: the first of several, of zeros too; a NaN before all."""
    y = (x * 2).round()
    values, where = y.max(-1)
    return (
        values * 2,
        where + 1,
        y.min(-1, keepdim=True).values - y,
        y.argmin(-1),
        (y * 0).argmax(-1, keepdim=True) * where[:, None],
        torch.max(x * -0.0, -1),
        (x == x.max(-1, keepdim=True)[0]).sum(-1),
    )


def log_sums(x):
    y = x * 0.5
    m = torch.logsumexp(y + x[0], -1)
    return (
        m * 2,
        y - y.logsumexp(-1, keepdim=True),
        (y - m[:, None]).exp(),
        torch.logsumexp(x / 0, -1),
    )


def softmaxes_back(x):
    y = x * 2
    g = torch._log_softmax_backward_data(x.abs(), y, -1, x.dtype)
    return g * 0.5, g.sum(-1), torch._softmax_backward_data(g, y, -1, x.dtype) + 1


def layer_norms(x):
    """Those of torch, with and without weights, and all three that it returns."""
    n, w = (x.shape[-1],), x[0] * 0.5
    y = x * 0.5 + w
    kept, mean, scale = torch.native_layer_norm(y, n, w, None, 1e-3)
    return (
        F.layer_norm(y, n) * 2,
        F.layer_norm(y, n, w, x[1]).relu(),
        F.layer_norm(y, n, None, w) + y,
        kept * scale,
        mean + 1,
        (F.layer_norm(x, x.shape) - x, F.layer_norm(x[None] + x[:, None], x.shape) * 2),
    )


def spreads(x):
    """By themselves and between other ops, by any number of degrees of freedom, down to less than none."""
    y = x * 0.5
    mean, deviation = y.mean(-1, keepdim=True), y.std(-1, keepdim=True)
    return (
        x.var(-1),
        (y - mean) / deviation,
        y.var(-1, correction=0) + y.std(-1, correction=2.5),
        y.var(-1, correction=len(x[0])),
        torch.std(y, (-1,), correction=len(x[0]) + 3, keepdim=True) * y,
    )


FUNCTIONS = (
    places, log_sums, layer_norms, spreads, softmaxes, softmaxes_back,
    softmax, log_softmax, layer_norm, rms_norm, scaled, lengths, of_rows_only, in_place, truths, other_rows,
    kept_apart, with_single_elements, of_single_elements,
)  # fmt: skip
EACH = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


def matrices(dtype=torch.float32):
    torch.manual_seed(3)
    return [torch.randn(5, n, dtype=dtype) * 3 for n in LENGTHS]


@program(given=matrices, recorded=True)
@EACH
def test_rows_of_any_length(matrices, function):
    return [function(x) for x in matrices]


@program(given=lambda: matrices(torch.float64), recorded=True)
@EACH
def test_rows_of_doubles(matrices, function):
    return [function(x) for x in matrices]


def special():
    torch.manual_seed(4)
    values = torch.tensor(
        [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, 3e38, -3e38, 1.0]
    )
    return [values[torch.randint(n, (64, 45))] for n in (2, 4, 5, 9)]


@program(given=special)
@EACH
def test_zeros_infinities_and_missing_values(special, function):
    return [function(x) for x in special]


def layouts():
    torch.manual_seed(5)
    x = torch.randn(6, 4, 32)
    return [
        x,
        x.transpose(0, 2).contiguous().transpose(0, 2),
        x.transpose(0, 1).contiguous().transpose(0, 1),
        torch.stack([x, x], -1)[..., 0],
        x[:, :, ::2],
        x[:, :1].expand(6, 4, 32),
        x[..., :1],
        x[:1, :1],
        x[:0],
        x.flatten(),
        x[0].mT,
        x,
    ]


@program(given=layouts, times=4)
@EACH
def test_layouts_that_change_at_the_same_lines(layouts, function):
    return [function(x) for x in layouts]


@program(given=layouts)
def test_several_dimensions_make_up_a_row(layouts):
    found = []
    for x in layouts:
        if x.dim() == 3:
            y = x * 2
            found.append(
                (
                    y.sum((1, 2)),
                    y - y.amax((-1, -2), keepdim=True),
                    y.mean((0, 2)),
                    y.sum((0, 1, 2)),
                )
            )
    return found


@program(given=lambda: [torch.randn(3, n) for n in (20_000, 40_000, 70_000)], times=4)
@EACH
def test_rows_that_are_too_long_for_scratch_memory(rows, function):
    return [function(x) for x in rows]


@program(given=lambda: [torch.randn(300, 700), torch.randn(2, 90_000), torch.randn(1, 90_000)])
@EACH
def test_rows_on_several_threads(matrices, function):
    return [function(x) for x in matrices]


@program(given=lambda: torch.randn(40, 40))
def test_what_a_square_matrix_has_one_of_for_each_row_is_not_what_it_has_for_each_column(x):
    y = x * 3
    s = y.sum(-1)
    return y - s, y - y.sum(-1, keepdim=True), y - y.sum(0), y / s[:, None], y.amax(1) + y.amax(0)


@program(given=lambda: torch.randn(8, 64).requires_grad_())
def test_gradients_through_rows(x):
    loss = (softmax(x) * layer_norm(x)).sum(-1).mean()
    loss.backward()
    return loss, x.grad


def windows():
    torch.manual_seed(8)
    x, m = torch.randn(900), torch.randn(40, 70)
    return [
        x.unfold(0, 20, 1), x.unfold(0, 64, 16), m, m[:, ::2], m.t(), m.t()[5:60], m[:1].expand(50, 70),
        m[:, :1].expand(40, 9), m.view(4, 10, 70).transpose(0, 1)[:, ::2], m.unfold(1, 9, 3),
        m.unfold(0, 40, 1)[0], x.view(30, 30).diagonal()[None],
        m.double()[::3], x.unfold(0, 20, 1),
    ]  # fmt: skip


@program(given=windows)
def test_spreads_of_rows_that_lie_in_any_way(windows):
    found = []
    for x in windows:
        found.append((x.std(-1), x.var(0) * 2, x.var(-1, keepdim=True) + x.mean(-1, keepdim=True)))
        found.append(((x - x.mean()).std(-1), x.std((0, -1)), x.sum(-1) + x.std(-1)))
        found.append((x.max(-1), x.min(0).indices + 1, x.argmax(-1), x.argmin(0), x.argmax()))
    return found


def test_a_rolling_deviation_is_a_kernel():
    import torchy

    x = torch.randn(500)

    def rolling(x):
        return x.unfold(0, 20, 1).std(-1)

    with torchy.lazy():
        rolling(x)  # how the result lies is seen now
    groups = groups_of(x, rolling, compile="always")
    assert [(group.kind, len(group.ops)) for group in groups] == [("fused", 1)]


def of_the_last_but_one(x):
    """What comes last has one element: eager's softmax has another order then, and its layer norm copies."""
    y = x * 2
    return (
        F.softmax(y, -2) * 2,
        F.log_softmax(y, -2),
        torch.logsumexp(y, -2),
        y.sum(-2) + y.amax(-2),
        F.layer_norm(y, y.shape[-2:]).sum((-1, -2)),
        F.softmax(y, -1) + 1,
    )


@program(given=lambda: [torch.randn(5, n, m) * 3 for n, m in ((8, 4), (64, 1), (7, 33), (40, 1))])
def test_dimensions_of_one_element_come_last(given):
    return [of_the_last_but_one(x) for x in given for _ in range(2)]


@program(given=lambda: (torch.randn(6, 33, 37), torch.randn(6, 37, 33).mT))
def test_layer_norm_of_several_dimensions_in_another_order(z, p):
    found = []
    for x in (z, z, z, p, p, z, p):
        found.append(F.layer_norm(x, (33, 37)).sum((-1, -2)).tolist())
        y, mean, scale = torch.native_layer_norm(x, (33, 37), None, None, 1e-5)
        del y
        found.append((mean.tolist(), scale, F.layer_norm(x, (37,)).amax(-1).tolist()))
    return found


def halves():
    """Rows of which the sum of squares lies in the middle between two results now and then."""
    torch.manual_seed(0)
    a, b = 0.3518311679363251, 1.2695573568344116
    whole = [(torch.randn(20_000, n) * 2048).round() for n in (3, 4, 5, 9)]
    return [torch.tensor([[a, b, a, a]] * 16), *whole]


@program(given=halves)
def test_spreads_that_are_hard_to_round(halves):
    return [(x.std(-1), x.var(-1) + 1, x.t().contiguous().var(0), x.mT.std(0)) for x in halves]


@program(given=lambda: torch.randn(1, 70_000))
def test_threads_that_change_while_layouts_stay(x):
    found = []
    for threads in (1, 1, 1, 2, 2, 1, 3, 1):
        torch.set_num_threads(threads)
        found.append((x.sum(-1).item(), x.mean(-1).item(), (x * 2).sum(-1).item(), x.amax().item()))
    return found


@program(
    given=lambda: (
        [torch.rand(n, 3) for n in (1, 4, 9, 1)]
        + [torch.rand(3), torch.rand(1, 1, 3), torch.rand(5, 1)]
    )
)
def test_what_a_row_has_one_of_is_reduced_by_itself(given):
    found = []
    for x in given:
        s = x.sum(-1, keepdim=True)
        found.append(
            (
                s.softmax(-1),
                s.log_softmax(-1),
                s.amax(-1),
                s.logsumexp(-1),
                s.var(-1, correction=0),
                s.argmax(-1),
            )
        )
        found.append(
            (
                x.amax(-1, keepdim=True).softmax(-1),
                torch.nn.functional.layer_norm(x.mean(-1, keepdim=True), (1,)),
            )
        )
    return found


def groups_of(x, function, **settings):
    """Return the fused and called groups of a flush."""
    import torchy

    with torchy.lazy(**settings) as session:
        kept = function(x)
        torchy.flush()
    del kept
    return session.report.traces[-1].groups


@pytest.mark.parametrize(
    ("function", "ops"), [(softmax, 5), (layer_norm, 9), (rms_norm, 5), (scaled, 5), (in_place, 6)]
)
def test_rows_and_what_is_around_them_are_one_kernel(function, ops):
    fused = groups_of(torch.randn(9, 64), function, compile="always")
    assert [(group.kind, len(group.ops)) for group in fused] == [("fused", ops)]


def test_one_row_first_and_then_many_is_one_kernel():
    x = torch.randn(9, 64)
    kinds = [
        [g.kind for g in groups_of(t, squares, compile="always")] for t in (x[:1], x[:0], x, x)
    ]
    assert kinds[-1] == ["fused"]


def test_rows_with_elements_that_stand_alone_are_one_kernel():
    (group,) = groups_of(
        torch.randn(9, 64), lambda x: x.sum(-1) * torch.tensor(0.5), compile="always"
    )
    assert (group.kind, len(group.ops)) == ("fused", 2)


def test_scratch_memory_is_not_on_the_stack():
    import threading

    import torchy

    x, found = torch.randn(4, 30_000), []

    def work():
        with torchy.lazy(compile="always"):
            found.append(softmax(x))

    threading.stack_size(64 * 1024)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert torch.equal(found[0], softmax(x))


@pytest.mark.parametrize(
    ("dimension", "rows", "kind"), [(-1, 9, "fused"), (0, 9, "fused"), (0, 2000, "call")]
)
def test_sums_by_themselves_are_kernels_but_for_those_of_many_columns(dimension, rows, kind):
    (group,) = groups_of(torch.randn(rows, 64), lambda x: x.sum(dimension), compile="always")
    assert group.kind == kind


def test_what_depends_on_positions_does_not_join_rows():
    groups = groups_of(
        torch.randn(9, 64), lambda x: torch.sigmoid(x.softmax(-1)) * 2, compile="always"
    )
    assert [(group.kind, len(group.ops)) for group in groups] == [("fused", 1), ("fused", 2)]


def squares(x):
    return (x * x).sum(-1)


FITS, TRANSPOSED = torch.randn(40, 64), torch.randn(64, 40).mT
LAYOUT = "this time rows do not lie together in memory"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (TRANSPOSED, LAYOUT),
        (FITS[:, :1].clone(), LAYOUT),
        (
            torch.randn(1, 40_000),
            "this time there is a single row of so many elements that eager reduces it in parts",
        ),
        (torch.randn(2, 70_000), "this time rows are longer than the kernel can take"),
    ],
)
def test_where_rows_lie_otherwise_the_ops_are_called_and_the_report_says_so(other, why):
    torch.set_num_threads(2)
    seen = []
    for x in (FITS, FITS, FITS, other, FITS, other, other, other):
        groups = groups_of(x, squares, compile="always")
        seen.append([(group.kind, group.refused) for group in groups])
    refused = [("fused", why)]
    assert seen == [[("fused", None)]] * 3 + [refused, [("fused", None)]] + [refused] * 3
    groups = groups_of(other, squares, compile="always")  # then it is planned for how they lie now
    if other.shape == FITS.shape:  # as columns
        assert [(group.kind, group.refused) for group in groups] == [("fused", None)]
    elif len(other) > 2:
        assert [group.kind for group in groups] == ["fused", "call"]


def test_layouts_that_keep_changing_are_planned_without_rows():
    for _ in range(5):
        for x in [FITS] * 4 + [TRANSPOSED] * 4:
            groups = groups_of(x, squares, compile="always")
    assert not any(group.refused for group in groups)
    assert [group.kind for group in groups_of(FITS, squares, compile="always")] == ["fused", "call"]


def test_rows_that_are_always_too_long_are_not_planned_for():
    x = torch.randn(2, 70_000)
    for _ in range(20):
        groups = groups_of(x, squares, compile="always")
    assert [(group.kind, group.refused) for group in groups] == [("fused", None), ("call", None)]


def test_a_kernel_refuses_where_the_walker_repeats_a_flush_by_itself():
    import torchy

    with quiet():
        wanted = [squares(x) for x in (FITS, TRANSPOSED)]
    with torchy.lazy(compile="always") as session:
        for x in [FITS] * 6 + [TRANSPOSED] * 6 + [FITS] * 6:
            found = squares(x)
            torchy.flush()
            assert torch.equal(found, wanted[x is TRANSPOSED])
            wait_for_kernels()
    assert session.counters["repeated"] > 0
    assert LAYOUT in [group.refused for trace in session.report.traces for group in trace.groups]


@pytest.mark.parametrize("function", [softmax, layer_norm, in_place, kept_apart])
def test_any_kernel_may_refuse(function):
    import torchy
    from torchy.codegen.cpu.kernel import Kernel

    def refusing(kernel, *arguments, **named):
        walk, _, *rest = launch_words(kernel, *arguments, **named)
        return [walk, 0, *rest]

    launch_words = Kernel.launch_words
    Kernel.launch_words = refusing
    x = torch.randn(9, 64)
    with quiet():
        wanted = function(x)
    for _ in range(3):
        with torchy.lazy(compile="always"):
            found = function(x)
        assert str(found) == str(wanted)
