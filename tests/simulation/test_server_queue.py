"""The queue of the simulated server: how busy it is, and how long messages wait."""

from __future__ import annotations

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR
from distkeras.simulation import Constant, Exponential, Network, Quadratic, simulate


def run(num_workers, network, step_time=None, size=1, **options):
    return simulate(
        DOWNPOUR(communication_window=1),
        Quadratic(curvature=np.ones(size)),
        num_workers=num_workers,
        learning_rate=1e-4,
        step_time=step_time or Exponential(1.0),
        network=network,
        evaluate_every=10**6,
        **{"num_commits": 4000} | options,
    )


def test_a_server_saturates_at_one_message_in_its_service_time():
    service = 0.05
    for num_workers, load in ((4, 0.2), (80, 1.0)):  # 4 and 80 messages a second ask for the server.
        result = run(num_workers, Network(service=service))
        assert result.num_commits / result.times[-1] <= 1 / service
        assert result.utilisation == pytest.approx(load, abs=0.03)
        assert result.server_seconds == pytest.approx(result.num_messages * service)
    assert result.num_commits / result.times[-1] == pytest.approx(1 / service, rel=0.02)
    # Of 80 workers, 20 train at any time; the others wait: Little's law.
    assert result.mean_wait == pytest.approx(59 * service, rel=0.05)


def test_nobody_waits_for_a_server_that_takes_no_time_or_for_one_worker():
    for result in (run(16, Network()), run(1, Network(service=2.0))):
        assert result.waiting_seconds == 0.0
    assert run(16, Network()).utilisation == 0.0


def test_several_servers_share_the_bytes_of_a_message_but_each_has_its_own_service_time():
    def rate(servers, service=0.0):
        network = Network(service=service, throughput=4000.0, servers=servers)
        result = run(50, network, Constant(1e-6), size=100, num_commits=500)
        return result.num_commits / result.times[-1]

    assert rate(1) == pytest.approx(10.0, rel=0.01)  # 400 bytes a message.
    assert rate(4) == pytest.approx(40.0, rel=0.01)
    assert rate(4, service=0.075) == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize("name", ["throughput", "servers"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Network(**{name: value})
