import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("cached_replica_suite.py"))
def test_cached_replica(backend, case):
    check(backend, case)
