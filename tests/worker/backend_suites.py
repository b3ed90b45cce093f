"""Runs a suite of tests once for each Keras backend, each in a process of its own."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from starting import without_tensorflow

HERE = Path(__file__).parent
BACKENDS = ("jax", "tensorflow", "torch")
SUITES = (
    "device_suite.py",  # First: TensorFlow takes a second device before it computes.
    *("model_suite.py", "journey_suite.py", "attributes_suite.py", "replica_suite.py", "nesterov_suite.py"),
    *("feed_suite.py", "cached_replica_suite.py", "randomness_suite.py", "simulation_suite.py"),
    *("predict_suite.py", "pytorch_suite.py"),
)
ON_ONE_BACKEND = "torch"
"""Where the tests of a model's travel, and of one that is kept, all run: it compiles nothing."""
ALL_ON_ONE = (
    *("model_suite.py", "journey_suite.py", "attributes_suite.py", "cached_replica_suite.py"),
    *("randomness_suite.py", "pytorch_suite.py"),
)
ON_EVERY_BACKEND = (
    "test_thawed_model_has_every_weight_and_seed_bit_for_bit",
    "test_model_defined_in_main_works_in_another_process",
    "test_seeds_of_workers_differ_and_are_the_same_every_time",
    "test_every_worker_has_numbers_of_its_own_and_has_them_again",
    "test_worker_zero_draws_what_fit_draws_and_others_draw_other_numbers",
    "test_kept_replica_trains_bit_for_bit_like_a_new_one",
    "test_nothing_of_one_training_leaks_into_the_next",
    "test_local_state_lets_another_process_go_on_bit_for_bit",
    "test_an_ordered_learning_rate_holds_at_once_without_another_compilation",
    "test_an_ordered_step_moves_the_schedule_and_a_replacement_finds_the_same_place",
    "test_classes_that_keras_cannot_save_are_copied_by_value",
    "test_copies_by_value_train_like_the_model",
    "test_flags_of_inner_layers_and_of_single_weights_travel",
    "test_double_precision_makes_the_vector_double",
    "test_weights_that_are_left_out_of_weight_decay_stay_out",
    "test_an_attribute_may_refer_to_layers_and_weights_of_the_model",
    "test_a_compile_setting_may_refer_to_layers_of_the_model",
    "test_methods_that_were_replaced_on_one_object_travel",
    "test_methods_that_were_replaced_on_the_model_travel",
    "test_a_method_that_the_backend_has_compiled_travels_as_it_was",
    "test_what_a_call_has_left_in_a_layer_is_no_setting_of_it",
)
"""Those of them that depend on the backend."""
TWO_DEVICES = "--xla_force_host_platform_device_count=2"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "NPROC": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def cases(suite: str) -> list[tuple[str, str]]:
    """Backend and name of each test in `suite` that is to run, without importing Keras here."""
    tree = ast.parse((HERE / suite).read_text())
    names = [
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"
    ]
    return [(backend, name) for backend in BACKENDS for name in names if runs_on(backend, suite, name)]


def runs_on(backend: str, suite: str, name: str) -> bool:
    """Whether the test `name` of `suite` is to run on `backend`."""
    return suite not in ALL_ON_ONE or backend == ON_ONE_BACKEND or name in ON_EVERY_BACKEND


@functools.cache
def report(backend: str) -> dict[str, str]:
    """Run all suites on `backend`; return each test's failures by its name (empty: passed)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={path}"]
        chosen = [
            f"{HERE / suite}::{case}" for suite in SUITES for where, case in cases(suite) if where == backend
        ]
        run = subprocess.run(
            [*command, *chosen],
            # What is set outside holds: `make rounding` sets threads and instructions.
            env=ENVIRONMENT
            | os.environ
            | {"KERAS_BACKEND": backend}
            | ({"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {TWO_DEVICES}"} if backend == "jax" else {})
            | ({} if backend == "tensorflow" else without_tensorflow(Path(folder))),
            capture_output=True,
            text=True,
            timeout=900,
        )
        if not path.exists():
            raise RuntimeError(f"no report on {backend}: {run.stdout}\n{run.stderr}")
        results: dict[str, str] = {}
        for case in ElementTree.parse(path).iter("testcase"):
            name = case.attrib["name"].partition("[")[0]
            results[name] = results.get(name, "") + "".join(child.text or child.tag for child in case)
    return results


def check(backend: str, case: str) -> None:
    """Fail with what the test `case` said on `backend`."""
    results = report(backend)
    assert case in results, f"{case} did not run on {backend}: {results}"
    assert not results[case], f"on {backend}:\n{results[case]}"
