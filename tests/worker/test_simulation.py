import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("simulation_suite.py"))
def test_simulation(backend, case):
    check(backend, case)
