"""Rules 1, 4 and 6 with callers in C++: without the GIL, on torch's pools and on threads that Python has never seen."""

import tempfile
import threading

import pytest
import torch
from sameness import TIERS, same

SOURCE = r"""
#include <thread>

at::Tensor chain(const at::Tensor& x) {
  at::Tensor y = at::mul(x, 1.5);
  y.add_(1);
  y.narrow(0, 1, 2).mul_(2);
  return at::exp(y) + x;
}

// Each task reads and writes a part, on whichever thread of the pool.
at::Tensor parallel(const at::Tensor& x) {
  at::Tensor result = at::zeros_like(x);
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) result.select(0, i).copy_(x.select(0, i).mul(2).add(i));
  });
  return result;
}

std::vector<double> threads(const at::Tensor& x, int64_t count) {
  std::vector<double> sums(count);
  std::vector<std::thread> all;
  for (int64_t i = 0; i < count; ++i)
    all.emplace_back([&, i] { sums[i] = (x * i + 1).sum().item<double>(); });
  for (auto& thread : all) thread.join();
  return sums;
}

std::vector<at::Tensor> made_elsewhere(const at::Tensor& x) {
  std::vector<at::Tensor> made(2);
  std::thread first([&] { made[0] = chain(x); });
  first.join();
  std::thread second([&] { made[1] = made[0] * x; x.add_(1); });
  second.join();
  return made;
}

double look_raw(const at::Tensor& x) {
  const float* values = static_cast<float*>(x.data_ptr());
  return values[0] + values[x.numel() - 1];
}

void write_raw(const at::Tensor& x) { static_cast<float*>(x.data_ptr())[0] = 7; }

at::Tensor gradient(const at::Tensor& x) {
  at::Tensor leaf = x.detach().requires_grad_();
  (leaf * leaf).exp().sum().backward();
  return leaf.grad();
}

at::Tensor under_guards(const at::Tensor& x) {
  at::Tensor y = x * 2;
  {
    at::NoGradGuard no_grad;
    y = y + x;
  }
  {
    at::AutoDispatchBelowADInplaceOrView below;
    y = y * 3 + at::neg(x);
  }
  {
    c10::InferenceMode inference;
    y = (y + x).clone();
  }
  return y;
}

at::Tensor between_pools(const at::Tensor& x) {
  at::Tensor result;
  std::promise<void> done;
  at::launch([&] { result = x.mul(3).tanh(); done.set_value(); });
  done.get_future().wait();
  return result + x;
}

std::shared_ptr<at::Tensor> kept;
void keep(const at::Tensor& x) { kept = std::make_shared<at::Tensor>(x * 2); }
at::Tensor take() { at::Tensor x = *kept + 1; kept.reset(); return x; }
"""
FUNCTIONS = """chain parallel threads made_elsewhere look_raw write_raw gradient under_guards
between_pools keep take""".split()


def built(folder):
    """Compile the functions; each of them gives up the GIL."""
    from torch.utils.cpp_extension import load_inline

    names = "\n".join(
        f'  module.def("{name}", &{name}, py::call_guard<py::gil_scoped_release>());'
        for name in FUNCTIONS
    )
    bindings = f"PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {{\n{names}\n}}\n"
    return load_inline(
        "native_callers",
        ["#include <future>\n" + SOURCE + bindings],
        build_directory=folder,
        extra_cflags=["-O0", "-g0"],
    )


def programs(native):
    """Yield what is compared: functions that call the extension on pending tensors."""

    def given():
        return torch.linspace(-1, 1, 6) * 1.5, torch.arange(5.0) + 1

    def calls_by_turns():
        x, y = given()
        results = [native.chain(x), native.chain(native.chain(x) * 0.1) + y[0]]
        results += [native.parallel(x * 2), native.threads(x + y[1], 4), native.look_raw(x * 3)]
        return results, x, y

    def writes_in_place():
        x, y = given()
        view, later = x[1:], x * 2
        made = native.made_elsewhere(x)
        z = x * 10
        native.write_raw(x)
        return made, z, x, view, later, native.look_raw(view), y

    def pools_with_pending_views():
        x, y = given()
        base = torch.outer(x, y) * 2
        columns = native.parallel(base.t())
        base.add_(1)
        return columns, base, native.between_pools(base), native.between_pools(columns[0])

    def guards_and_gradients():
        x, y = given()
        w = (x * 0.5).requires_grad_()
        results = [native.gradient(x + 1), native.under_guards(x * 2), native.chain(w * x)]
        results[2].sum().backward()
        with torch.no_grad():
            results.append(native.under_guards(w))
        with torch.inference_mode():
            results.append(native.chain(x))
        return results, w, y

    def holds_what_python_dropped():
        x, y = given()
        native.keep(x)
        del x
        z = y * 3
        return native.take() * 2, z

    def several_python_threads():
        x, y = given()
        shared, results = (x * 2).exp(), [None] * 6

        def run(i):
            results[i] = native.chain(shared * i), native.threads(shared + i, 2)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results, shared, y

    yield calls_by_turns
    yield writes_in_place
    yield pools_with_pending_views
    yield guards_and_gradients
    yield holds_what_python_dropped
    yield several_python_threads


@pytest.mark.slow
@pytest.mark.seconds(300)
def test_callers_in_cpp_without_the_interpreter_s_lock():
    with tempfile.TemporaryDirectory() as folder:
        native = built(folder)
        for body in programs(native):
            for compile in TIERS:
                same(body, compile=compile, recorded=True)
