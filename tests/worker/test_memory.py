"""Memory that a worker frees after a minibatch and needs again for the next."""

from __future__ import annotations

import subprocess
import sys

NEXT_MINIBATCH = """
import resource
import numpy as np
from distkeras.worker.memory import keep_freed_memory

def minibatch():
    layer = np.ones(1_000_000, np.float32)
    following = layer * 2
    del layer
    return following * 2

keep_freed_memory()
for _ in range(5):
    minibatch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    minibatch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_minibatches_of_a_new_process_find_the_memory_of_those_before():
    done = subprocess.run([sys.executable, "-c", NEXT_MINIBATCH], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # Each took a thousand pages and more from the system.


NEXT_EXCHANGE = """
import resource
import numpy as np
from distkeras.worker.memory import keep_freed_memory

def exchange():
    local = np.ones(10_000_000, np.float32)
    message = local - 1
    return message * 2

keep_freed_memory(40_000_000)
for _ in range(5):
    exchange()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    exchange()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_exchanges_of_a_large_model_find_the_memory_of_those_before():
    done = subprocess.run([sys.executable, "-c", NEXT_EXCHANGE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # Else each takes 30 pages of 2 MiB, and a thousand small ones, anew.


OTHER_THREAD = """
import resource
import threading
import numpy as np
from distkeras.worker.memory import keep_freed_memory, limit_heaps

def exchange():
    np.ones(5_000_000, np.float32)

limit_heaps(1)
keep_freed_memory()
exchange()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=exchange)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_a_thread_has_freed_serves_another():
    done = subprocess.run([sys.executable, "-c", OTHER_THREAD], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300  # Else 800: a thread's own heap begins empty.


HOLES = """
import numpy as np
from distkeras.worker.memory import keep_freed_memory, release_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

keep_freed_memory()
weights = [np.ones(250_000, np.float32) for _ in range(50)]
del weights[:-1]
before = resident()
release_freed_memory()
print(before - resident())
"""


def test_holes_that_a_model_leaves_are_given_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10_000  # Pages: all but one of 50 arrays of a megabyte.
