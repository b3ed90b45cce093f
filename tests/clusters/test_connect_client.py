"""Spark Connect: a client without py4j and Java trains on a standalone cluster."""

from __future__ import annotations

from checking import TRAIN, check


def test_a_client_without_java_trains_on_a_standalone_cluster(standalone, connect_server, submit):
    server = connect_server(standalone.url)
    output = submit(TRAIN, "DOWNPOUR", "LocalSGD", "--host", "127.0.0.1", to=server)
    assert "pure client True" in output
    check(output, "DOWNPOUR", "LocalSGD")
