import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("attributes_suite.py"))
def test_attributes(backend, case):
    check(backend, case)
