import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("randomness_suite.py"))
def test_randomness(backend, case):
    check(backend, case)
