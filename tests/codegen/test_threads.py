"""Threads: what is tried on this machine leaves them to the program, and parts are those of the threads that come."""

import math
import os
import subprocess
import sys
import threading

import pytest
import torch

from torchy.codegen.cpu.driver import BLOCK
from torchy.codegen.cpu.orders import cascade
from torchy.codegen.cpu.part_folds import MOST
from torchy.codegen.cpu.threads import one_thread

FORKED = """
import os, torch
from torchy.codegen.cpu.kernel import Compiler
from torchy.codegen.cpu.verify_rows import attempt_rows
from torchy.ir.ops import ROWS
x = torch.ones(1000, 1000)
(x + x).sum()  # starts the pool, whose threads no child has
child = os.fork()
if child == 0:
    compiler = Compiler()
    differs = attempt_rows(ROWS["sum"], torch.float32, False, compiler.math.lanes, compiler._compile_unverified)
    os._exit(1 if differs else 0)
_, status = os.waitpid(child, 0)
print(status)
"""


def test_one_thread_is_asked_for_by_this_thread_only():
    before, elsewhere = torch.get_num_threads(), []
    with one_thread():
        assert torch.get_num_threads() == 1
        other = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert torch.get_num_threads() == elsewhere[0] == before


def test_a_child_that_was_forked_after_the_pool_had_started_can_try_sums():
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", FORKED],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=True,
    )
    assert ran.stdout == "0\n"


LIMITED = """
import torch, torchy
torch.manual_seed(0)
torch.set_num_threads(4)
for n in (70_000, 100_000, 1_000_000):
    x = torch.randn(n) * torch.exp(torch.randn(n) * 3)
    found = []
    for lazy in (False, True):
        if lazy:
            with torchy.lazy(compile="always") as session:
                found.append(((x * 2).sum(), (x * 2).mean(), (x - 1).amax()))
            (group,) = (group for trace in session.report.traces for group in trace.groups)
            assert group.kind == "fused" and group.refused is None
        else:
            found.append(((x * 2).sum(), (x * 2).mean(), (x - 1).amax()))
    assert [each.item() for each in found[0]] == [each.item() for each in found[1]], found
"""


@pytest.mark.parametrize("limit", ["1", "2", "3"])
def test_parts_are_those_of_the_threads_that_come(limit):
    environment = {**os.environ, "OMP_THREAD_LIMIT": limit}
    subprocess.run([sys.executable, "-c", LIMITED], timeout=120, env=environment, check=True)


@pytest.mark.parametrize("lanes", [4, 8])
def test_a_block_of_a_part_has_all_blocks_of_a_cascade_that_move_up_together(lanes):
    order = cascade(lanes)
    size = order.lanes * order.accumulators
    power = max(4, math.ceil(math.log2(MOST // size)) // order.levels)  # as Order has it
    assert BLOCK % (size << power) == 0
