"""Rule 2, errors and warnings: the same exception, type and message, from the same line of the program."""

import traceback
import warnings

import pytest
import torch
import torch.nn.functional as F
from sameness import program


def sizes_that_do_not_match(x):
    return (x * 2) + torch.ones(3)


def matrix_sizes_that_do_not_match(x):
    return (x + 1).reshape(2, 5) @ torch.ones(4, 2)


def index_out_of_range(x):
    return (x + 1)[torch.tensor([0, 10])]


def integer_index_out_of_range(x):
    return (x + 1)[10]


def dimension_out_of_range(x):
    return (x * 2).sum(3)


def softmax_dimension_out_of_range(x):
    return (x * 2).softmax(1)


def integer_division_by_zero(x):
    return (x.long() + 1) // 0


def integer_division_by_a_zero_tensor(x):
    return (x.long() + 1) // (x.long() * 0)


def integer_remainder_by_zero(x):
    return (x.int() + 1) % (x.int() * 0)


def integer_fmod_by_zero(x):
    return torch.fmod(x.long(), x.long() - x.long())


def integer_division_by_zero_in_place(x):
    y = x.long()
    y.div_(0, rounding_mode="trunc")
    return y


def integers_to_negative_powers(x):
    return (x.long() + 1) ** -1


def subtraction_of_bools(x):
    return (x > 0) - (x < 0)


def negation_of_bools(x):
    return -(x > 0)


def bitwise_and_of_floats(x):
    return (x + 1) & (x + 2)


def shift_of_floats(x):
    return (x + 1) << 1


def in_place_result_of_another_dtype(x):
    y = x.long() + 1
    y.add_(0.5)


def in_place_comparison_of_another_size(x):
    y = x + 1
    y.mul_(torch.ones(3, 10))


def in_place_on_an_expanded_tensor(x):
    y = (x[:1] + 1).expand(5)
    y.add_(1)


def in_place_with_overlapping_operands(x):
    y = x + 1
    y[1:].add_(y[:-1])


def copy_between_overlapping_views(x):
    y = x + 1
    y[1:].mul_(2).copy_(y[:-1])
    y[::2].add_(y[:5])


def out_of_a_wrong_dtype(x):
    torch.add(x, 1, out=torch.zeros(10, dtype=torch.int64))


def out_that_overlaps(x):
    y = x + 1
    torch.add(y[1:], 1, out=y[:-1])


def out_that_requires_grad(x):
    torch.add(x, 1, out=torch.zeros(10, requires_grad=True))


def where_without_a_condition(x):
    return torch.where(x + 1, x, x)


def lerp_of_two_dtypes(x):
    return torch.lerp(x + 1, x.double(), 0.5)


def addmm_of_two_dtypes(x):
    return torch.addmm(x.double()[:2], (x + 1).reshape(2, 5), torch.ones(5, 2))


def matmul_of_integers_and_floats(x):
    return (x + 1).reshape(2, 5) @ torch.ones(5, 2, dtype=torch.int64)


def convolution_of_wrong_channels(x):
    return F.conv1d((x + 1).reshape(1, 2, 5), torch.ones(1, 3, 2))


def layer_norm_of_a_wrong_shape(x):
    return F.layer_norm(x + 1, (3,))


def batch_norm_of_one_value(x):
    return F.batch_norm((x[:1] + 1).reshape(1, 1), None, None, training=True)


def item_of_many(x):
    return (x + 1).item()


def bool_of_many(x):
    return bool(x + 1)


def float_of_none(x):
    return float(x[:0] + 1)


def int_of_nan(x):
    return int((x + float("nan"))[0])


def reshape_to_a_wrong_size(x):
    return (x + 1).reshape(3, 4)


def view_of_a_transposed_tensor(x):
    return (x + 1).reshape(2, 5).t().view(10)


def numpy_of_what_requires_grad(x):
    return (x.requires_grad_() + 1).numpy()


def in_place_on_a_leaf(x):
    x.requires_grad_()
    x.add_(1)


def in_place_on_a_view_of_a_leaf(x):
    x.requires_grad_()
    x[:3].mul_(2)


def backward_of_many(x):
    (x.requires_grad_() * 2).backward()


def backward_twice(x):
    y = (x.requires_grad_() * 2).exp().sum()
    y.backward()
    y.backward()


def backward_after_a_saved_tensor_changed(x):
    y = (x.requires_grad_() * 2).exp()
    y.add_(1)
    y.sum().backward()


def backward_without_grad(x):
    (x * 2).sum().backward()


def a_parameter_that_does_not_exist(x):
    return (x + 1).clamp(minimum=3)


def clamp_without_limits(x):
    return (x + 1).clamp()


def a_name_that_does_not_exist(x):
    return (x + 1).no_such_method()


def a_string_as_operand(x):
    return (x + 1) * "2"


def cat_of_nothing(x):
    return torch.cat([x + 1, (x + 1).reshape(2, 5)])


def stack_of_different_sizes(x):
    return torch.stack([x + 1, x[:3] + 1])


def one_hot_out_of_range(x):
    return F.one_hot(torch.arange(10) + 1, 4)


def embedding_out_of_range(x):
    return F.embedding(torch.arange(10) + 1, torch.ones(4, 2) * 2)


def cross_entropy_target_out_of_range(x):
    return F.cross_entropy((x + 1).reshape(2, 5), torch.tensor([3, 4]) + 5)


def gather_out_of_range(x):
    return (x + 1).gather(0, torch.tensor([3, 40]))


def a_norm_that_does_not_converge(x):
    return torch.linalg.cholesky(-torch.eye(3) * 2)


def an_assert_on_values(x):
    y = x * 2
    assert (y < 0).all(), "y is not negative"


def an_error_of_the_programs_own(x):
    y = x * 2
    return {}[y.shape]


def linspace_of_negative_steps(x):
    return torch.linspace(0, 1, -3)


def complex_comparison(x):
    return torch.complex(x, x) < 1


def resize_of_what_requires_grad(x):
    (x.requires_grad_() * 2).resize_(3)


def set_data_of_another_dtype(x):
    x.requires_grad_().data = torch.zeros(3, dtype=torch.int64) + 1


def multinomial_of_negative_weights(x):
    return torch.multinomial(x - 20, 2)


def bernoulli_out_of_range(x):
    return torch.bernoulli(x + 2)


def masked_fill_with_a_vector(x):
    return (x + 1).masked_fill(x > 0, x)


def masked_fill_without_a_mask(x):
    return (x + 1).masked_fill(x, 1.0)


def scalar_out_of_range(x):
    return torch.ones(3, dtype=torch.uint8).fill_(1) + 2**70


def fill_out_of_range(x):
    return (x > 0).to(torch.int8).fill_(1000)


def a_number_too_large_for_half(x):
    return x.half().add(1, alpha=1e10)


def addcmul_integer_value(x):
    return torch.addcmul(x.long(), x.long(), x.long(), value=0.5)


def alpha_of_a_wrong_kind(x):
    return torch.add(x.long(), x.long(), alpha=0.5)


def alpha_for_bools(x):
    return torch.add(x > 0, x > 0, alpha=2.5)


def foreach_of_different_lengths(x):
    return torch._foreach_add([x + 1, x], [x])


def foreach_of_different_sizes(x):
    return torch._foreach_add([x + 1, x], [x, torch.ones(3)])


ERRORS = {function.__name__: function for function in list(globals().values())
          if callable(function) and getattr(function, "__module__", "") == __name__}  # fmt: skip


@program(slow=("always",))
@pytest.mark.parametrize("name", ERRORS)
def test_error(name, kept):
    x = torch.arange(10.0)
    before = x * 3
    kept += [x, before]
    ERRORS[name](x)


@program(slow=("never",))
@pytest.mark.parametrize("name", ERRORS)
def test_a_program_goes_on_after_an_error_that_it_catches(name):
    x = torch.arange(10.0)
    pending, seen = x * 3, None
    try:
        ERRORS[name](x.clone())
    except Exception as error:
        seen = error
    y = pending + x
    return x, pending, y, seen


@program
def test_an_error_in_a_function_called_deep_below():
    def inner(a, b):
        c = a * 2
        return c + b

    def outer(a):
        b = a[:3] + 1
        return [inner(a, b)]

    return outer(torch.arange(10.0))


@program
def test_the_same_line_may_fail_only_the_third_time(kept):
    x = torch.arange(6.0)
    for size in [6, 1, 3]:
        x = x + torch.ones(size)
        kept.append(x)


@program
def test_warnings_come_from_their_line():
    x = torch.arange(4.0) + 1
    torch.add(x, 1, out=torch.zeros(2))
    y = torch.tensor(x)
    z = (x * 2).reshape(2, 2, 1).T
    w = F.mse_loss(x, torch.ones(4, 1))
    warnings.warn("the program's own", stacklevel=1)
    return x, y, z, w, torch.nn.functional.softmax(x)


@program
def test_a_warning_turned_into_an_error(kept):
    x = torch.arange(4.0) + 1
    kept.append(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.add(x, 1, out=torch.zeros(2))


@program
def test_the_gradient_of_a_leaf_that_is_not_one_warns():
    x = torch.ones(3, requires_grad=True) * 2
    (x * 2).sum().backward()
    return x, x.grad


@program
def test_an_error_within_backward():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x * 2

        @staticmethod
        def backward(context, gradient):
            raise ValueError("broken")

    x = torch.ones(3, requires_grad=True)
    y = Broken.apply(x * 3) + 1
    y.sum().backward()


@program
def test_anomaly_mode_finds_the_line():
    with torch.autograd.set_detect_anomaly(True):
        x = torch.zeros(3, requires_grad=True)
        y = (x * 0).sqrt() * 0
        y.sum().backward()


@program
def test_out_of_memory_raises_where_eager_does_or_names_its_line(kept):
    x = torch.ones(10)
    kept.append(x * 2)
    torch.empty(2**50)


@program
def test_a_method_that_looks_warns_of_the_programs_line():
    x = torch.ones(3) * 2
    torch.storage._reset_warn_typed_storage_removal()
    storage = x.storage()
    copies = [x.new_tensor(x), x.new_tensor(x + 1)]
    torch.set_float32_matmul_precision("neither high nor low")
    return storage.tolist(), copies


@program
def test_a_filter_by_module_raises_what_a_method_that_looks_warns_of(kept):
    kept.append(x := torch.ones(3) * 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=__name__)
        x.new_tensor(x)


@program
def test_a_method_that_looks_leaves_no_frame(kept):
    x = (torch.ones(3) * 2).requires_grad_()
    for look in (x.numpy, x.__dlpack__, lambda: torch.Tensor.tolist(3)):
        try:
            look()
        except Exception as error:
            kept.append(traceback.extract_tb(error.__traceback__)[-1][:3])
