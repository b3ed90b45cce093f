"""Workers behind a network that cuts, delays, truncates and duplicates."""

from __future__ import annotations

from dataclasses import replace

import bare
from proxy import Proxy

from distkeras.algorithms import DOWNPOUR, LocalSGD

RATES = {"cut": 0.03, "truncate": 0.03, "duplicate": 0.03, "delay": 0.03}


def run(seed, algorithm):
    proxies = []

    def through(address):
        proxies.append(Proxy((address.host, address.port), seed, **RATES))
        return replace(address, port=proxies[-1].port, local_name=None)

    try:
        job = bare.run(through=through, algorithm=algorithm)
    finally:
        for proxy in proxies:
            proxy.close()
    assert all(proxies[0].faults.values())
    return job


def test_a_bad_network_loses_no_window_and_doubles_none():
    bare.check(run(1, DOWNPOUR(communication_window=2)), 120)


def test_a_bad_network_loses_no_message_of_a_round():
    job = run(2, LocalSGD(communication_window=2))
    assert sum(window.steps for window in job.history) == 120
    assert job.num_updates <= 60
