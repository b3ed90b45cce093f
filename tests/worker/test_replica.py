import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("replica_suite.py"))
def test_replica(backend, case):
    check(backend, case)
