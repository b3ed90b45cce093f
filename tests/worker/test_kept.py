import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("kept_suite.py"))
def test_kept(backend, case):
    check(backend, case)
