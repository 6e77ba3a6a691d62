"""Rule 4, aliasing: views, views of views, in-place writes and everything that overlaps."""

import pytest
import torch
from sameness import program
from torch.utils import swap_tensors


@program
def test_a_view_sees_later_writes_to_its_base():
    x = torch.arange(12.0).reshape(3, 4) * 1
    row, column, diagonal = x[1], x[:, 2], x.diagonal()
    x.add_(10)
    a = row * 2
    x.mul_(-1)
    return x, row, column, diagonal, a


@program
def test_a_base_sees_later_writes_to_its_views():
    x = torch.zeros(4, 5) + 1
    x[0].add_(1)
    x[:, 1].mul_(3)
    y = x * 2
    x[1:3, 2:4].zero_()
    x.t()[0].sub_(7)
    return x, y


@program
def test_views_of_views_written_before_and_after():
    x = torch.arange(24.0) + 0
    a = x.view(4, 6)
    a.mul_(2)
    b = a[1:].t()
    b += 1
    c = b.reshape(-1)
    d = b[::2, 1]
    x[7] = -1
    d.neg_()
    e = a.flatten()[5:9]
    e.copy_(torch.ones(4) * 100)
    return x, a, b, c, d, e


@program
def test_reads_before_a_write_keep_the_old_values():
    x = torch.arange(6.0) * 1
    before = x + 0
    half = x[:3] * 2
    x.mul_(10)
    after = x + 0
    x[:2] = before[4:]
    return before, half, after, x


@program
def test_writes_to_disjoint_and_overlapping_windows():
    x = torch.zeros(10) + 1
    x[:5].add_(1)
    x[5:].add_(2)
    x[3:8].mul_(3)
    total = x[2:6] + x[4:8]
    x[::2].sub_(1)
    x[1::2].sub_(total.repeat(2)[:5])
    return x, total


@program
def test_a_shifted_sum_over_one_buffer():
    x = torch.arange(8.0) + 0
    for _ in range(4):
        x[1:] = x[1:] + x[:-1]
        x[:-1] += x[1:].clone()
    return x


@program
def test_swapping_halves():
    x = torch.arange(8.0) * 1
    left, right = x[:4], x[4:]
    spare = left.clone()
    left.copy_(right)
    right.copy_(spare)
    a, b = x.clone(), x
    a[0], a[1] = a[1].clone(), a[0].clone()
    b[0], b[1] = b[1], b[0]
    return x, a


@program
def test_a_dead_base_with_a_living_view():
    def inner():
        base = torch.arange(12.0).reshape(3, 4) * 2
        other = base[0]
        base.add_(1)
        other.mul_(5)
        return base[:2, 1:3]

    view = inner()
    view.add_(1)
    return view, view.as_strided((3, 4), (4, 1), 0)


@program
def test_as_strided_windows_that_overlap_themselves():
    x = torch.arange(10.0) + 0
    windows = x.as_strided((6, 5), (1, 1))
    total = windows.sum(1)
    y = windows * 2
    x.mul_(2)
    unfolded = x.unfold(0, 4, 2)
    z = unfolded + 1
    x[3] = 100
    return x, windows, total, y, unfolded, z


@program
def test_reading_and_writing_through_expanded_views():
    x = torch.arange(3.0) * 2
    wide = x[:, None].expand(3, 4)
    y = wide + torch.arange(4.0)
    x.add_(1)
    z = wide * y
    y.sub_(wide)
    return x, wide, y, z


@program
def test_in_place_with_itself():
    x = torch.arange(5.0) + 1
    x.add_(x)
    x.mul_(x)
    x.sub_(x * 0.5)
    x /= x
    x[:] = x + x
    return x


@program
def test_transposed_in_place_with_itself():
    x = torch.arange(9.0).reshape(3, 3) * 1
    y = x + x.t()
    x.copy_(x.t().clone())
    z = x.clone()
    z.t_().add_(1)
    x.transpose_(0, 1)
    return x, y, z


@program
def test_out_given_as_a_view_or_as_an_operand():
    x = torch.arange(12.0).reshape(3, 4) + 0
    rows = torch.zeros(6, 4) + 5
    torch.add(x, 1, out=rows[::2])
    torch.mul(x, x, out=x)
    y = torch.ones(3, 4) * 2
    torch.sub(y, x, out=y)
    view = y[1]
    torch.exp(view * 0, out=view)
    torch.add(y[0], y[1], alpha=2, out=y[2])
    torch.gt(x, y, out=(mask := torch.zeros(3, 4, dtype=torch.bool)))
    return x, rows, y, view, mask


@program
def test_indexing_assignment_of_all_kinds():
    x = torch.zeros(4, 5) + torch.arange(5.0)
    x[0, 0] = 7
    x[1] = torch.arange(5.0) * 2
    x[:, 1] = x[:, 2]
    x[2, 1:3] += x[3, 1:3] * 2
    x[x > 6] = -1
    x[torch.tensor([0, 3])] = torch.ones(2, 5) * 9
    x[..., -1] = torch.tensor(3) * 2
    x[1:3, [0, 4]] *= 10
    x[None, :, :, None][0, 3, 0, 0] -= 1
    x[torch.arange(4), torch.arange(4)] = 0.5
    return x


@program
def test_data_shares_values_but_not_history():
    x = torch.ones(4, requires_grad=True)
    y = x * 2
    d = y.data
    d.add_(1)
    e = y.detach()
    e.mul_(2)
    y.data[0] = 9
    y.sum().backward()
    x.data = torch.arange(4.0) * 3
    x.data.sub_(1)
    return x, y, d, e


@program
def test_set_makes_tensors_share():
    x = torch.arange(6.0) * 2
    y = torch.zeros(3) + 1
    y.set_(x[2:5])
    y.add_(1)
    z = torch.zeros(0).set_(x)
    x.mul_(2)
    w = torch.empty(0).set_(x.untyped_storage(), 1, (2, 2), (2, 1))
    w.sub_(0.5)
    x += 1
    return x, y, z, w


@program
def test_resize_keeps_what_fits():
    x = torch.arange(6.0) * 2
    x.resize_(2, 2)
    y = x + 1
    x.resize_(3)
    z = torch.arange(4.0) + 1
    z.unsqueeze_(0).squeeze_(0)
    z.resize_(6)[4:] = 0
    w = torch.zeros(2) + 1
    w.resize_as_(z).copy_(z * 2)
    z.untyped_storage().resize_(8)
    return x, y, w, z.untyped_storage().nbytes()


@program
def test_swapped_and_reassigned_tensors():
    x, y = torch.ones(3) * 2, torch.zeros(2) + 5
    view = x[1:]
    torch.utils.swap_tensors(z := x + 1, w := y * 2)
    x.add_(1)
    return x, y, view, z, w


@program
def test_swapped_by_a_function_that_was_imported_before():
    x, y = torch.ones(3), torch.zeros(2)
    doubled, more = x * 2, y + 1
    swap_tensors(doubled, more)
    x.add_(1)
    kept = y + 1
    swap_tensors(x, y)
    return x, y, doubled, more, kept


@program
def test_shared_views_of_other_dtypes_are_ordered_by_bytes():
    x = torch.zeros(4, dtype=torch.int64) + 1
    halves = x.view(torch.int32)
    halves[::2] += 2
    y = x * 3
    x.sub_(1)
    halves[1] = 5
    real = torch.view_as_real(c := torch.complex(torch.ones(3), torch.zeros(3)) * 2)
    c.mul_(1j)
    real[:, 0].add_(1)
    return x, halves, y, real, c


@program
def test_views_made_before_the_write_was_pending():
    x = torch.arange(6.0)
    before = x[2:4]
    x.add_(1)
    between = before * 2
    before.zero_()
    after = x[1:3]
    x.mul_(2)
    return x, before, between, after


@program(given=lambda: (lambda x: (x, x[1:], x.view(2, 3).t()))(torch.arange(6.0)))
def test_writes_to_tensors_older_than_the_session(x, tail, matrix):
    y = matrix + 1
    x.add_(1)
    tail.mul_(2)
    matrix[0].sub_(y[0, 0])
    return y, matrix * tail[:2]


@program(given=lambda: torch.arange(6.0))
def test_a_write_to_an_older_tensor_that_has_no_views(x):
    y = x * 2
    x.add_(1)
    z = x * y
    x.zero_()
    view = x[1:]
    view += 3
    return y, z, view


@program
def test_iterating_and_unbinding():
    x = torch.arange(12.0).reshape(3, 4) + 0
    for i, row in enumerate(x):
        row *= i
    first, second, third = x.unbind()
    third.copy_(first + second)
    for part in x.split(2, dim=1):
        part.add_(part.sum())
    a, b = x.chunk(2)
    b.sub_(a[0])
    return x, first


@program
def test_contiguous_and_reshape_alias_only_where_eager_does():
    x = torch.arange(6.0).reshape(2, 3) + 0
    same, copied = x.contiguous(), x.t().contiguous()
    flat, copied_flat = x.reshape(-1), x.t().reshape(-1)
    to_same, to_other = x.to(torch.float32), x.to(torch.float64)
    x.add_(10)
    same[0] = 0
    return x, same, copied, flat, copied_flat, to_same, to_other, same is x, to_same is x


@program
def test_broadcast_and_meshgrid_views():
    x, y = torch.arange(3.0) * 2, torch.arange(4.0) + 1
    a, b = torch.broadcast_tensors(x[:, None], y)
    grid, _ = torch.meshgrid(x, y, indexing="ij")
    x.add_(1)
    s = a + b
    y.zero_()
    return a, b, s, grid, torch.atleast_2d(x), x.expand_as(s.t())


@program
def test_a_buffer_written_many_times_by_slices():
    cache = torch.zeros(2, 16, 4)
    keys = []
    for step in range(16):
        new = torch.full((2, 4), float(step)) * 0.5
        cache[:, step] = new
        keys.append((cache[:, : step + 1] * new[:, None]).sum(-1))
    return cache, keys


@program
def test_rolling_windows_in_one_buffer():
    x = torch.arange(10.0) + 0
    for i in range(8):
        x[i : i + 3] = x[i : i + 3].flip(0) + i
    return x


@program
def test_cat_stack_and_pad_copy():
    x = torch.arange(4.0) + 1
    joined = torch.cat([x, x * 2])
    stacked = torch.stack([x, joined[4:]])
    padded = torch.nn.functional.pad(x, (1, 2))
    x.zero_()
    stacked[0].add_(1)
    return x, joined, stacked, padded, torch.cat([x, x], out=torch.zeros(8))


@program
@pytest.mark.parametrize(
    "op", ["relu_", "exp_", "sigmoid_", "neg_", "clamp_", "fill_", "zero_", "add_", "masked_fill_"]
)
def test_in_place_ops_through_every_kind_of_view(op):
    more = {
        "clamp_": (-1, 1),
        "fill_": (3,),
        "add_": (2,),
        "masked_fill_": (torch.tensor(True), 4),
    }.get(op, ())
    results = []
    for window in [lambda x: x, lambda x: x[1], lambda x: x[:, 1], lambda x: x.t(), lambda x: x[::2, ::2],
                   lambda x: x.diagonal(), lambda x: x.view(-1)[3:], lambda x: x[2:2], lambda x: x[0, 0]]:  # fmt: skip
        x = torch.linspace(-3, 3, 12).reshape(3, 4) * 1
        other = x[1:]
        before = x * 2
        y = window(x)
        getattr(y, op)(*more)
        results += [x, other, before, y, x + 1]
    return results
