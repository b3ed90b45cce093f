"""Spark Connect: a client without py4j and Java trains on a standalone cluster."""

from __future__ import annotations

from pathlib import Path

from test_standalone import check

SCRIPT = Path(__file__).parent / "train_script.py"


def test_a_client_without_java_trains_on_a_standalone_cluster(standalone, connect_server, submit):
    server = connect_server(standalone.url)
    output = submit(SCRIPT, "--host", "127.0.0.1", to=server)
    assert "pure client True" in output
    check(output)
