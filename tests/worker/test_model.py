import pytest
from backend_suites import BACKENDS, cases, check


@pytest.mark.parametrize("case", cases("model_suite.py"))
@pytest.mark.parametrize("backend", BACKENDS)
def test_model(backend, case):
    check(backend, case)
