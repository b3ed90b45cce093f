"""Workers find a server by a folder, and find it again where it is started anew."""

from __future__ import annotations

import platform
import secrets
import time
from contextlib import contextmanager

import numpy as np
import pytest
from serving import TOKEN, commit, serving

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig, make_center
from distkeras.center.requests import Join, Poll
from distkeras.wire.client import Client, ServerAddress, ServerLost
from distkeras.wire.following import Following
from distkeras.wire.interfaces import own_hosts
from distkeras.wire.lease import Fenced
from distkeras.wire.server import Server
from distkeras.wire.server_place import Location, NotThere, ServerPlace
from distkeras.wire.shared_folder import SharedFolder


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    address = str(tmp_path) if request.param == "local" else f"memory://{secrets.token_hex(4)}"
    return ServerPlace(SharedFolder(f"{address}/servers/0"))


def address_at(place, size=4, **options):
    return ServerAddress("", 0, TOKEN, size, place=place, **options)


@contextmanager
def served_at(place, lease, hosts=("127.0.0.1",), **options):
    """A server whose process has taken the place and says where it listens."""
    with serving(**options) as (server, center, _):
        lease.take(0, lease.epoch)
        place.announce(Location(lease.epoch, hosts, server.port, machine="elsewhere"))
        yield server, center


def test_a_worker_finds_a_server_that_was_started_again_elsewhere(place):
    first, second = place.lease("first"), place.lease("second")
    with Client(address_at(place), patience=10.0) as client:
        with served_at(place, first) as (_, center):
            client.call(Join(0))
            client.call(commit(0, 1))
            assert center.event_log.num_updates == 1
        with served_at(place, second) as (_, center):
            assert place.find().epoch == 2
            client.call(Join(0))
            client.call(commit(0, 1))
            assert center.event_log.num_updates == 1
    with pytest.raises(Fenced):
        first.check()


def test_a_worker_does_not_go_to_a_server_whose_successor_is_not_up_yet(place):
    lease = place.lease("old")
    with served_at(place, lease) as (_, center):
        place.lease("new").take(0, 0)
        with (
            Client(address_at(place), patience=0.2) as client,
            pytest.raises(ServerLost, match=r"servers/0 could not be reached .*No parameter server is up"),
        ):
            client.call(Join(0))
        assert center.event_log.num_updates == 0
        with pytest.raises(NotThere):
            place.find()


def test_a_program_at_the_same_address_of_another_machine_is_passed_over(place):
    lease = place.lease("run")
    stranger = make_center(CenterConfig(DOWNPOUR(), 2), np.zeros(4, np.float32), clock=time.time)
    with served_at(place, lease, hosts=("127.0.0.3", "127.0.0.2", "127.0.0.1")) as (server, center):
        # Nothing listens at the first, and a server of another job at the second.
        other = Server(stranger, b"o" * 32, "127.0.0.2", (server.port,))
        try:
            with Client(address_at(place), patience=5.0) as client:
                client.call(Poll(0))
                client.call(Join(1))
        finally:
            other.close()
        assert center.event_log.num_updates == 0


def test_what_follows_another_server_shares_no_memory_with_it(place):
    lease = place.lease("run")
    lease.take(0, 0)
    place.announce(Location(1, ("host",), 7, local_name="\0name", machine=platform.node()))
    following = Following(None, address_at(place), lambda _: None)
    (own,) = following._client.addresses
    assert place.find().local_name == "\0name"
    assert own.place.find() == Location(1, ("host",), 7, None, platform.node())
    assert place.find().candidates == ["127.0.0.1", "host"]


def test_this_machine_has_addresses_that_others_may_know():
    hosts = own_hosts()
    assert platform.node() in hosts
    assert not any(host.startswith("127.") for host in hosts)
    assert len(hosts) == len(set(hosts))


def test_a_secret_of_the_address_is_not_shown(tmp_path):
    folder = SharedFolder("s3://key:secret123@bucket/run", {"password": "secret456"})
    assert (
        "secret"
        not in f"{folder} {folder!s} {address_at(ServerPlace(folder))} {address_at(ServerPlace(folder))!r}"
    )
