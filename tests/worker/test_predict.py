import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("predict_suite.py"))
def test_predict(backend, case):
    check(backend, case)
