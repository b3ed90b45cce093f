"""Memory that a worker frees after a minibatch and needs again for the next."""

from __future__ import annotations

import subprocess
import sys

import pytest

MINIBATCH = """
keep_freed_memory()

def turn():
    layer = np.ones(1_000_000, np.float32)
    following = layer * 2
    del layer
    return following * 2
"""

EXCHANGE = """
keep_freed_memory(40_000_000)

def turn():
    local = np.ones(10_000_000, np.float32)
    message = local - 1
    return message * 2
"""

TURNS = """
import resource
import numpy as np
from distkeras.worker.memory import keep_freed_memory
{turn}
for _ in range(5):
    turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("turn", [MINIBATCH, EXCHANGE], ids=["minibatch", "exchange of a large model"])
def test_each_turn_finds_the_memory_of_those_before(turn):
    code = TURNS.format(turn=turn)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # Each took a thousand pages and more from the system.


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
