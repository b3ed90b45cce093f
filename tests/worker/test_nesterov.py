import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("nesterov_suite.py"))
def test_nesterov(backend, case):
    check(backend, case)
