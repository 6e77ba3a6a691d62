"""Machine code, and what has been seen to agree with eager, are kept for the processes to come."""

import dataclasses

import pytest
import torch

from torchy.codegen.cpu.kernel import Compiler
from torchy.codegen.cpu.verdicts import Verdicts
from torchy.codegen.errors import CompileError
from torchy.disk import Shelf
from torchy.ir.kernel import Access, KernelForm, Load, Result, Statement, Store
from torchy.ir.trace import Mode

F = torch.float32


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "kept")


def form():
    """``(x * y).tanh()``: calls a vector-math function."""
    statements = (
        Statement("mul", (Load(0), Load(1)), F, F),
        Statement("tanh", (Result(0),), F, F),
    )
    return KernelForm((Access(F, Mode.LINEAR),) * 3, (), statements, (Store(2, Result(1)),))


def run(kernel):
    x, y, out = torch.linspace(-3, 3, 1003), torch.linspace(1, 2, 1003), torch.empty(1003)
    tensors = [(tensor.data_ptr(), None) for tensor in (x, y, out)]
    kernel.launch(kernel.pack([1003], tensors))
    assert torch.equal(out, (x * y).tanh())


def another(shelf, monkeypatch):
    """A compiler of another process: what it does not find it must not make."""
    compiler = Compiler(Shelf(shelf.folder))

    def forbidden(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(compiler, "machine", type("", (), {"emit_object": forbidden})())
    compiler.verifier.compile = forbidden
    return compiler


def test_what_is_kept_is_neither_compiled_nor_tried_again(shelf, monkeypatch):
    run(Compiler(shelf).compile(form()))
    kernel = another(shelf, monkeypatch).compile(form())
    run(kernel)
    assert "mul" in kernel.levels["assembly"]()


def test_a_compiler_without_a_shelf_keeps_nothing(shelf):
    run(Compiler().compile(form()))
    assert list(shelf.files()) == []


def test_what_is_damaged_is_made_again(shelf, monkeypatch):
    run(Compiler(shelf).compile(form()))
    for path, _ in shelf.files():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(AssertionError, match="made again"):
        another(shelf, monkeypatch).compile(form())
    run(Compiler(shelf).compile(form()))
    run(another(shelf, monkeypatch).compile(form()))


def test_that_an_op_differs_is_found_out_by_each_process(shelf):
    compiler = Compiler(shelf)
    own = compiler.verifier.compile

    def wrong(form):
        run = own(form)

        def of_sevens(sizes, tensors, numbers, out):
            run(sizes, tensors, numbers, out)
            if form.statements[0].op == "tanh":
                out.fill_(7.0)

        return of_sevens

    compiler.verifier.compile = wrong
    with pytest.raises(CompileError, match=r"tanh on torch.float32 differs from eager: .* 7\.0"):
        compiler.compile(form())
    compiler.verifier.compile = own
    with pytest.raises(CompileError, match="differs"):  # known by now
        compiler.compile(form())
    run(Compiler(Shelf(shelf.folder)).compile(form()))


KEY = ("mul", F, "[]")


def known(shelf):
    return Verdicts(Shelf(shelf.folder)).get(KEY)


def agreed(shelf):
    verdicts = Verdicts(shelf)
    verdicts.put(KEY, "")
    verdicts.keep()


def test_verdicts_of_several_processes_add_up(shelf):
    others = Verdicts(shelf)
    assert others.get(KEY) is None
    agreed(shelf)
    others.put(("add", torch.int64, "[('alpha', 1)]"), "")
    others.put(("sub", F, "[]"), "differs")
    others.keep()
    read = Verdicts(Shelf(shelf.folder))
    assert read.get(KEY) == read.get(("add", torch.int64, "[('alpha', 1)]")) == ""
    assert read.get(("sub", F, "[]")) is None and read.get(("mul", torch.float64, "[]")) is None


@pytest.mark.parametrize(
    "variable", ["ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "DNNL_VERBOSE"]
)
def test_verdicts_hold_for_one_setting_of_the_libraries_switches(shelf, monkeypatch, variable):
    agreed(shelf)
    monkeypatch.setenv(variable, "other")
    assert known(shelf) is None
    monkeypatch.delenv(variable)
    assert known(shelf) == ""


def test_verdicts_hold_for_one_instruction_set_torch_and_torchy(shelf, monkeypatch):
    agreed(shelf)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
        assert known(shelf) is None
    with monkeypatch.context() as patch:
        patch.setattr(torch.version, "git_version", "other")
        assert known(shelf) is None
    with monkeypatch.context() as patch:
        patch.setattr("torchy.codegen.cpu.facts._SOURCES", ("codegen",))
        assert known(shelf) is None
    assert known(shelf) == ""


def test_code_is_kept_by_what_it_computes(shelf, monkeypatch):
    run(Compiler(shelf).compile(form()))
    strided = dataclasses.replace(form(), accesses=(Access(F, Mode.STRIDED), *form().accesses[1:]))
    with pytest.raises(AssertionError, match="made again"):
        another(shelf, monkeypatch).compile(strided)
