import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("journey_suite.py"))
def test_journey(backend, case):
    check(backend, case)
