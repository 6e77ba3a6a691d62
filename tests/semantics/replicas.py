"""Two processes that work together, and what they say when they hang."""

import faulthandler
import os
import pickle
import signal
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path

import torch.multiprocessing as mp

FORK = mp.get_context("fork")
PATIENCE = 25.0  # seconds


def tell_threads(pid):
    """Print what the kernel knows of a process's threads: their states, and what they wait for."""
    for folder in sorted(Path(f"/proc/{pid}/task").iterdir()):
        state = [line for line in (folder / "status").read_text().splitlines() if "State" in line]
        print(pid, (folder / "comm").read_text().strip(), *state, (folder / "wchan").read_text())
        print("   ", (folder / "syscall").read_text().strip(), flush=True)


def replicas(function, *arguments):
    """Return what ``function(rank, store, *arguments)`` returns in two processes; they meet at the file ``store``.

    Raises
    ------
    TimeoutError
        If one of them hangs, or has ended without a result.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipes = [FORK.Pipe(duplex=False) for _ in range(2)]

        def work(rank):
            faulthandler.register(signal.SIGUSR1)  # prints what its threads are at
            result = function(rank, folder + "/store", *arguments)
            pipes[rank][1].send_bytes(pickle.dumps(result))  # if it raises, nothing comes

        processes = [FORK.Process(target=work, args=(rank,)) for rank in range(2)]
        for process in processes:
            process.start()
        for (reader, _), process in zip(pipes, processes, strict=True):
            wait([reader, process.sentinel], PATIENCE)
            if not reader.poll():
                for other in processes:
                    tell_threads(other.pid)
                    os.kill(other.pid, signal.SIGUSR1)
                    time.sleep(1)
                codes = [other.exitcode for other in processes]
                raise TimeoutError(f"a replica hangs, or has died; exit codes so far: {codes}")
        results = [reader.recv_bytes() for reader, _ in pipes]
        for process in processes:
            process.join()
    return [pickle.loads(result) for result in results]
