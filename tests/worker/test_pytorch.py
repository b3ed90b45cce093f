import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("pytorch_suite.py"))
def test_pytorch(backend, case):
    check(backend, case)
