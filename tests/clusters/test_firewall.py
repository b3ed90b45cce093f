"""Hosts of their own with a firewall between them."""

from __future__ import annotations

from pathlib import Path

from test_standalone import check

SCRIPT = Path(__file__).parent / "train_script.py"


def test_trains_where_only_the_documented_ports_are_open(namespaces, far_standalone, submit):
    spark, server = (7001, 7002), 7003
    namespaces.close_all_but((*spark, server), "driver")
    settings = {"spark.driver.port": "7001", "spark.driver.blockManager.port": "7002"}
    script = (SCRIPT, "--ports", server)
    check(submit(*script, to=far_standalone, host=namespaces["driver"], settings=settings))
