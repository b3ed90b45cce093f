import pytest
from backend_suites import cases, check


@pytest.mark.parametrize(("backend", "case"), cases("feed_suite.py"))
def test_feed_training(backend, case):
    check(backend, case)
