"""Receipts: what a run wrote, and whether another one writes the same."""

from __future__ import annotations

import json

import pytest
import torch

import torchy


def run(receipt, last=1.0, turns=4, threads=None):
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        with torchy.lazy(receipt=receipt):
            x = torch.linspace(0, 1, 5000)
            for turn in range(turns):
                x = (x * 1.5).sin() + (last if turn == 3 else 1.0)
                x.sum().item()
    finally:
        torch.set_num_threads(before)
    return receipt.close()


def test_a_run_is_as_its_receipt_says(tmp_path):
    path = tmp_path / "run.jsonl"
    said = run(torchy.Receipt(path))
    assert said.startswith(f"4 flushes written to {path} (") and "spent on hashing" in said
    first, *lines = map(json.loads, path.read_text().splitlines())
    assert first["torchy receipt"] == 1 and first["torch"] == torch.__version__
    assert len(lines) == 4
    listings = [line["listing"] for line in lines if "listing" in line]
    assert len(listings) == len({line["trace"] for line in lines}) < 5
    assert lines[1]["at"].startswith("test_receipt.py, line ")
    assert all(len(digest) == 32 for line in lines for *_, digest in line["wrote"])
    check = torchy.Receipt(path, check=True)
    assert check.checks
    assert run(check).startswith("4 of 4 equal (")
    assert check.equal


def test_the_first_difference_is_named(tmp_path):
    path = tmp_path / "run.jsonl"
    run(torchy.Receipt(path))
    check = torchy.Receipt(path, check=True)
    said = run(check, last=1.0000001)
    assert said.startswith("3 of 4 equal; first difference: test_receipt.py, line ")
    assert "`add`" in said and not check.equal


def test_a_program_that_goes_another_way(tmp_path):
    path = tmp_path / "run.jsonl"
    run(torchy.Receipt(path))
    assert run(torchy.Receipt(path, check=True), turns=3).startswith(
        "3 of 4 equal; 1 of the receipt"
    )
    assert "a flush that the receipt does not have" in run(
        torchy.Receipt(path, check=True), turns=5
    )
    with torchy.lazy(receipt=(check := torchy.Receipt(path, check=True))):
        pass
    assert check.close().startswith("0 of 4 equal; 4 of the receipt were not run")


def test_threads_do_not_show_in_pointwise_ops(tmp_path):
    path = tmp_path / "run.jsonl"

    def chain(receipt, threads):
        torch.set_num_threads(threads)
        with torchy.lazy(receipt=receipt):
            x = torch.linspace(0, 1, 100_000)
            for _ in range(3):
                x = (x * 1.5).sin() + 1
                x[0].item()
        return receipt.close()

    before = torch.get_num_threads()
    try:
        chain(torchy.Receipt(path), 1)
        assert chain(torchy.Receipt(path, check=True), 2).startswith("3 of 3 equal")
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no receipt: its first line should say"),
        ("hello", "line 1: no receipt of Torchy's"),
        ('{"torchy receipt": 99}', "of another version: 99"),
        ('{"torchy receipt": 1}\n{"at": "x"}', "line 2: it should have at, trace, sizes, wrote"),
        ("[1]", "is no receipt"),
    ],
)
def test_a_file_that_is_no_receipt_is_told(tmp_path, text, message):
    path = tmp_path / "other.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        torchy.Receipt(path, check=True)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(OSError, match=r"none\.jsonl"):
        torchy.Receipt(tmp_path / "none.jsonl", check=True)
    with pytest.raises(OSError, match=r"nowhere"):
        torchy.Receipt(tmp_path / "nowhere" / "x.jsonl")


def test_what_is_no_receipt_is_no_setting():
    with pytest.raises(ValueError, match=r"receipt must be a torchy\.Receipt or None"):
        torchy.lazy(receipt="run.jsonl")


def noted(path, program, check=False):
    receipt = torchy.Receipt(path, check=check)
    with torchy.lazy(receipt=receipt):
        kept = program()
    del kept
    return receipt.close()


def test_what_a_later_write_leaves_of_an_earlier_one_counts(tmp_path):
    def program(scale):
        y = torch.linspace(0, 1, 100) * scale
        y[:3].zero_()
        return y

    path = tmp_path / "run.jsonl"
    noted(path, lambda: program(1.0))
    assert noted(path, lambda: program(1.0), check=True).startswith("1 of 1 equal")
    assert "0 of 1 equal; first difference" in noted(path, lambda: program(2.0), check=True)


def test_every_result_of_an_op_counts(tmp_path):
    def program(last):
        x = torch.linspace(0, 1, 60).view(6, 10) + 0
        x[0, -1] = last
        return x.add(0).sort(-1)

    path = tmp_path / "run.jsonl"
    noted(tmp_path / "other.jsonl", lambda: program(0.02))  # its places are known then
    noted(path, lambda: program(0.02))
    assert "0 of 1" not in noted(path, lambda: program(0.02), check=True)
    assert "first difference" in noted(path, lambda: program(0.03), check=True)
