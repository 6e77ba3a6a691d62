"""One chain at one size, in a process of its own, with every peer: prints a line of JSON.

In a fresh process, with empty caches, a first call is a first call.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.chains import Chain, bytes_to_move, chain, look, operands
from benchmarks.measure import Contender, in_turns, summary
from benchmarks.peers import Peer, peers


def first_call(
    peer: Peer, function: Chain, inputs: Sequence[torch.Tensor]
) -> tuple[Chain, torch.Tensor, float]:
    """Prepare a function and call it; return it, its result, and the seconds both took."""
    start = time.perf_counter()
    prepared = peer.prepare(function, inputs)
    with peer.region():
        result = prepared(*inputs)
        look(result)
    return prepared, result, time.perf_counter() - start


def contend(peer: Peer, prepared: Chain, inputs: Sequence[torch.Tensor]) -> Contender:
    """Return a call of a prepared function; its result is looked at and dropped."""
    return Contender(lambda: look(prepared(*inputs)), peer.region)


def copy_of(size: int) -> Contender:
    """Return a copy that moves as many bytes as the chain must, into memory that is there already."""
    source = torch.rand(bytes_to_move(size) // 8)
    target = torch.empty_like(source).fill_(0)

    def run() -> float:
        target.copy_(source)
        return look(target)

    return Contender(run)


def compare(result: torch.Tensor, expected: torch.Tensor) -> dict[str, Any]:
    """Return whether two float32 results have the same bits, and how far they are apart at most, in ulp."""
    bits, expected_bits = (t.view(torch.int32).to(torch.int64) for t in (result, expected))
    return {
        "equal": bool(torch.equal(bits, expected_bits)),
        "max_ulp": int((bits - expected_bits).abs().max()),  # all values are positive
    }


def measure(length: int, size: int, seconds: float) -> dict[str, Any]:
    """Return all that is known of one case, times in seconds."""
    function, inputs = chain(length), operands(size)
    expected = function(*inputs)
    found: dict[str, dict[str, Any]] = {}
    contenders: dict[str, Contender] = {}
    prepared: dict[str, tuple[Peer, Chain]] = {}
    for peer in peers():
        try:
            call, result, first = first_call(peer, function, inputs)
            with peer.region():
                again = call(*inputs)  # may take another path than the first
                look(again)
        except Exception as error:
            found[peer.name] = {"failed": f"{type(error).__name__}: {error}".split("\n")[0]}
            continue
        same = [compare(each, expected) for each in (result, again)]
        found[peer.name] = {
            "first_call": first,
            "equal": all(each["equal"] for each in same),
            "max_ulp": max(each["max_ulp"] for each in same),
        }
        del result, again
        contenders[peer.name] = contend(peer, call, inputs)
        prepared[peer.name] = (peer, call)
    times = in_turns({**contenders, "copy": copy_of(size)}, seconds)
    copy = summary(times.pop("copy"))
    for name, rounds in times.items():
        found[name] |= summary(rounds)
        found[name]["of_roofline"] = copy["median"] / found[name]["median"]
        found[name]["ratio"] = found["eager"]["median"] / found[name]["median"]
    other = operands(size * 7 // 8)
    expected = function(*other)
    for name, (peer, call) in prepared.items():
        start = time.perf_counter()
        with peer.region():
            result = call(*other)
            look(result)
        found[name]["new_size"] = time.perf_counter() - start
        found[name]["equal"] &= compare(result, expected)["equal"]
    return {
        "ops": length,
        "size": size,
        "bytes": bytes_to_move(size),
        "copy": copy,
        "peers": found,
    }


def main() -> None:
    """Measure the case that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", type=int)
    parser.add_argument("size", type=int)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    print(json.dumps(measure(options.ops, options.size, options.seconds)))


if __name__ == "__main__":
    main()
