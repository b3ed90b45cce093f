import pytest
from backend_suites import BACKENDS, cases, check


@pytest.mark.parametrize("case", cases("replica_suite.py"))
@pytest.mark.parametrize("backend", BACKENDS)
def test_replica(backend, case):
    check(backend, case)
