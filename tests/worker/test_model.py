import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("model_suite.py"))
def test_model(backend, case):
    check(backend, case)
