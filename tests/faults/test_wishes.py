"""The driver asks from any thread, orders for all or one member, and polls often when it is waited for."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.center.answers import Polled, Pulled
from distkeras.center.orders import FOREVER, Orders
from distkeras.center.requests import Keep, Order, Poll, Pull
from distkeras.cluster.pace import POLL_SECONDS, SOON_SECONDS, Pace
from distkeras.cluster.watch import Watch
from distkeras.cluster.wishes import Wishes
from distkeras.events import ServerRestored, Window


class Server:
    """Workers, and their server with the connection to it: notes what it is asked, and if two ask at once."""

    def __init__(self):
        self.asked, self.dies, self.together = [], 0, False
        self._busy = threading.Lock()

    def revive(self, since, seconds):
        self.dies -= 1
        return self.dies == 0

    def wait(self, seconds):
        return False  # The workers go on.

    def close(self):
        self.asked.append("restarted")

    def call(self, request):
        self.together |= not self._busy.acquire(blocking=False)
        time.sleep(0.0005)
        self.asked.append(request)
        self._busy.release()
        return Pulled(np.zeros(1, np.float32), 1) if isinstance(request, Pull) else Polled([], 0, 0)


def watch_of(server, **options):
    center = CenterConfig(DOWNPOUR(), 3, **options)
    return Watch(server, server, server, 3, print, center=center)


def test_requests_of_several_threads_go_out_one_after_another_and_no_order_is_lost():
    server = Server()
    watch = watch_of(server)

    def ask(number):
        for index in range(20):
            watch.order(window=1 + 20 * number + index)
            watch.keep(1 + 20 * number + index)
            watch.ask(Pull())

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watch.ask(Poll(0))
    assert not server.together
    assert sorted(each.samples for each in server.asked if isinstance(each, Keep)) == list(range(1, 81))
    last = [each for each in server.asked if isinstance(each, Order)][-1]
    assert last.orders.window == watch._wishes._orders.window


def test_a_restarted_server_is_told_the_orders_again_before_the_next_request():
    server = Server()
    watch = watch_of(server)
    watch.order(until=20)
    server.dies = 1
    watch.ask(Pull())
    watch.ask(Poll(0))
    order = Order(Orders(until=20))
    assert server.asked == [order, "restarted", Pull(), order, Poll(0)]


def test_an_order_in_the_middle_of_a_request_goes_out_after_it():
    """As from the handler of a signal, in the thread that waits for the server's answer."""
    server = Server()
    watch = watch_of(server)
    call = server.call

    def interrupted(request):
        if isinstance(request, Pull):
            watch.order(stop=True)
        return call(request)

    server.call = interrupted
    watch.ask(Pull())
    watch.ask(Poll(0))
    assert server.asked == [Pull(), Order(Orders(stop=True)), Poll(0)]


def test_what_one_member_of_an_ensemble_is_ordered_survives_orders_for_all():
    server = Server()
    watch = watch_of(server, independent=True)
    watch.order(learning_rate=0.5)
    watch.order(member=1, stop=True)
    watch.order(until=FOREVER)
    common = Orders(learning_rate=0.5, until=FOREVER)
    stopped = common._replace(stop=True)
    assert server.asked[:2] == [
        Order(Orders(learning_rate=0.5)),
        Order(Orders(learning_rate=0.5, stop=True), 1),
    ]
    assert server.asked[2:] == [Order(common, 0), Order(stopped, 1), Order(common, 2)]
    server.dies = 1
    watch.ask(Poll(0))
    watch.ask(Poll(0))
    assert server.asked[-4:-1] == server.asked[2:5]


@pytest.mark.parametrize("member", [-1, 3, 0])
def test_orders_for_no_member_are_refused(member):
    wishes = Wishes(0 if member == 0 else 3)
    with pytest.raises(ValueError, match=f"Received: member={member}"):
        wishes.order({"stop": True}, member)
    assert wishes.unsent() == []


def window(samples, worker=0):
    return Window(worker, 0, 0, 1, samples, {}, 0, 7.0)


def test_polls_are_frequent_when_a_boundary_is_near_and_while_the_center_holds():
    pace = Pace()
    assert pace.seconds([1000], 0.1) == POLL_SECONDS
    for _ in range(8):  # 1000 rows a second: the boundary is 0.5 s away after 500 rows.
        pace.take(window(100))
        found = pace.seconds([1000], 0.1)
    assert found == SOON_SECONDS
    pace.take(window(200))
    assert pace.seconds([1000], 0.1) == SOON_SECONDS
    assert pace.seconds([3000], 0.1) == POLL_SECONDS
    for until in (None, FOREVER):
        assert pace.seconds([until], 0.1) == POLL_SECONDS
    pace.take(ServerRestored([1], [False], 3000, 1, 7.0))
    assert pace.seconds([3000], 10.0) == SOON_SECONDS


def test_the_members_of_an_ensemble_have_rows_of_their_own():
    pace = Pace(2)
    for _ in range(8):
        pace.take(window(100, 0))
        pace.take(window(100, 1))
        found = pace.seconds([2000], 0.1)
    assert found == POLL_SECONDS


def test_the_center_that_is_pulled_is_in_memory_of_its_own_and_the_watch_ends_when_it_is_told():
    server = Server()
    watch = watch_of(server)
    pulled = Pulled(np.zeros(2, np.float32), 3)
    call, server.call = server.call, lambda request: pulled if isinstance(request, Pull) else call(request)
    found = watch.pull(kept=20)
    pulled.center.fill(9)
    assert (found.center.tolist(), found.num_updates) == ([0, 0], 3)
    threading.Timer(0.05, watch.end).start()
    assert watch.run() == 0
