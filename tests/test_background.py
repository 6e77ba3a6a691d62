import os
import threading

from torchy.background import Background


def test_it_leaves_the_programs_threads_the_time_they_want():
    found = []
    worker = Background(
        lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    )
    worker.start()
    worker.join()
    here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert found == [min(here + 10, 19)]
