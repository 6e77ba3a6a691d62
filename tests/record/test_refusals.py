"""What the walker refuses, and what is said where there can be none; nothing crashes."""

import datetime
import os
import platform
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from recording import begun, counters, the_walker

import torchy
from torchy.record import building, codes
from torchy.record.building import WalkerUnavailable

ENOUGH = {  # what comes after the handle
    "close": (),
    "set": (0, True, True, True, False, False),
    "never": ("add",),
    "record_into": (),
    "flush": ("reason",),
    "counters": (),
    "take_log": (),
}
HANDLES = {
    "nothing": None,
    "a number": 5,
    "an object": object(),
    "a capsule of another kind": datetime.datetime_CAPI,
}


@pytest.mark.parametrize("handle", HANDLES)
@pytest.mark.parametrize("name", ENOUGH)
def test_what_is_no_session_is_refused(name, handle):
    walker = the_walker()
    before = walker.open(10**6, 0, 1024, 1 << 24, False, False, -1)
    with pytest.raises((ValueError, RuntimeError), match=r"[Cc]apsule|session"):
        getattr(walker, name)(HANDLES[handle], *ENOUGH[name])
    assert walker.close(before) == 1  # it goes on
    with torchy.lazy(compile="never") as session:
        y = torch.ones(3) * 2
        assert counters(session).recorded == 1
    assert y.tolist() == [2] * 3


def test_numbers_of_no_session_are_as_if_it_had_ended():
    walker, unknown = the_walker(), 10**9
    library = walker.library
    assert [library.torchy_begin(unknown), library.torchy_flushes(unknown)] == [0, 0]
    assert walker.running(unknown) is None
    assert library.torchy_finish(unknown, 1, -1) == -1
    assert library.torchy_weigh(unknown, 1, 1, 1, 1) == library.torchy_only_walks(unknown) == 0
    assert walker.remember(unknown, 1, 0, "", 0, 0, 1, -1, (), (), ()) == 0
    assert walker.execute(unknown, 1, 0, 0) == 0
    library.torchy_leave(unknown)
    library.torchy_attach(unknown)
    assert not torchy.is_pending(torch.ones(3) * 2)


def test_a_script_is_only_remembered_while_a_flush_runs():
    with torchy.lazy(compile="never") as session:
        y = torch.ones(3) * 2
        assert the_walker().remember(session.id, 1, 0, "", 0, 0, 1, -1, (), (), ()) == 0
    del y


def test_functions_of_the_walker_mind_how_many_arguments_they_get_and_which():
    walker = the_walker()
    with pytest.raises(RuntimeError, match="takes 7 arguments, not 1"):
        walker.open(1)
    with pytest.raises(TypeError):
        walker.open("a", 0, 1024, 1 << 24, False, False, -1)
    with pytest.raises(TypeError):
        walker.remember(1, 1, 0, "", 0, 0, 1, -1, ("a",), (), ())
    assert walker.library.torchy_forget(-1) == 1  # no session is left behind


def test_a_place_where_traces_begin_has_no_op_to_describe():
    with torchy.lazy(compile="never") as session:
        y = torch.ones(3) * 2
        with begun(session) as record:
            root = record.path[0] - 1
        with pytest.raises(RuntimeError, match="where traces begin"):
            the_walker().describe_node(root)
    del y


@pytest.mark.parametrize("reason", [5, None, b"bytes"])
def test_a_reason_that_is_no_text_is_refused_and_nothing_is_lost(reason):
    with torchy.lazy(compile="never"):
        y = torch.ones(3) * 2
        with pytest.raises(TypeError, match="flush takes a reason in words, a str, not"):
            torchy.flush(reason)
        assert torchy.is_pending(y)
    assert y.tolist() == [2] * 3


@pytest.mark.parametrize("reason", ["a\0b", "\udc80", "\ud800x", "é", ""])
def test_any_text_is_a_reason(reason):
    with torchy.lazy(compile="never") as session:
        for _ in range(4):
            y = torch.ones(3) * 2
            torchy.flush(reason)
    del y
    assert [trace.reason for trace in session.report.traces] == [reason] * 4


def test_a_table_that_differs_is_told_part_by_part():
    told = "\n".join(
        line.replace("Flush=0", "Flush=9") for line in the_walker().codes().splitlines()
    )
    records = {"functions": ["listen=vi"]}
    found = sorted(line.split(" is ")[0] for line in codes.differences(told, records))
    assert found == ["Ask", "Counters", "Record", "functions"]


def test_tensors_without_memory_owe_nothing():
    walker = the_walker()
    sparse = torch.eye(3).to_sparse()
    assert not torchy.is_pending(sparse)
    assert not torchy.is_pending(torch.empty(3, device="meta"))
    assert walker.settle(sparse._cdata, True, "a reader") == codes.Repeated.YES
    assert walker.storage(sparse) is None
    for nothing in (None, 5, [torch.ones(2)]):
        with pytest.raises(TypeError, match="is_pending takes a tensor, not"):
            torchy.is_pending(nothing)


def test_without_a_compiler_it_is_told_what_to_install():
    os.environ.pop("CXX", None)
    os.environ["PATH"] = ""
    folder = tempfile.mkdtemp()
    assert building.compiler() is None
    with pytest.raises(WalkerUnavailable, match=r"found no C\+\+ compiler: install one .*\$CXX"):
        building.build(folder)
    assert os.listdir(folder) == []
    assert building.build() == building.library_path()  # what has been built serves


def test_a_compiler_that_is_named_goes_before_others_if_it_is_there():
    os.environ["CXX"] = "/nonexistent/c++"
    assert building.compiler() != "/nonexistent/c++"
    os.environ["CXX"] = sys.executable
    assert building.compiler() == sys.executable


def test_what_a_compiler_says_is_told():
    folder = Path(tempfile.mkdtemp())
    compiler = folder / "c++"
    compiler.write_text("#!/bin/sh\necho noise >&2\necho 'x.h: error: no such thing' >&2\nexit 1\n")
    compiler.chmod(0o755)
    os.environ["CXX"] = str(compiler)
    with pytest.raises(WalkerUnavailable) as raised:
        building.build(folder / "cache")
    first, *others = str(raised.value).splitlines()
    assert first == f"{compiler} could not compile the walker for torch {torch.__version__}:"
    assert others == ["x.h: error: no such thing"]
    assert not building.is_built(folder / "cache")


def test_a_folder_that_cannot_be_written_is_told():
    with pytest.raises(WalkerUnavailable, match=r"cannot keep its walker in /proc/.*cache_dir"):
        building.build("/proc/no/such/folder")


@pytest.mark.parametrize(
    ("system", "machine"), [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "aarch64")]
)
def test_other_platforms_are_told(system, machine):
    sys.platform, platform.machine = system, lambda: machine
    with pytest.raises(WalkerUnavailable, match=f"not on {system} {machine}: cells run eagerly"):
        building.build()


def test_a_cached_walker_that_is_broken_is_built_anew():
    folder = Path(tempfile.mkdtemp())
    script = folder / "c++"
    script.write_text(
        f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\ncp {building.library_path()} "$2"\n'
    )
    script.chmod(0o755)
    os.environ["CXX"] = str(script)
    library = building.build(folder)
    whole = library.read_bytes()
    library.write_bytes(whole[:1000])
    assert not building.is_built(folder)
    assert building.build(folder) == library and library.read_bytes() == whole


def test_the_walker_of_other_sources_is_another_file():
    path = building.library_path("folder")
    building.FLAGS = (*building.FLAGS, "-O3")
    assert building.library_path("folder") != path
    assert building.library_path("folder").parent == path.parent == Path("folder")
