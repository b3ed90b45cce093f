"""The shape of the house: imports point one way, and importing the package stays light."""

from __future__ import annotations

import ast
import graphlib
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "distkeras"

# What each package may import of this project, and which of the heavy libraries.
ALLOWED = {
    "events": set(),
    "algorithms": set(),
    "center": {"algorithms", "events"},
    "record": {"algorithms", "center", "events"},
    "wire": {"algorithms", "center", "record", "events"},
    "model": {"algorithms", "center"},
    "worker": {"algorithms", "center", "wire", "model", "events", "compiled_code"},
    "compiled_code": set(),
    "jvm": {"compiled_code"},
    "cluster": {
        "algorithms",
        "center",
        "record",
        "wire",
        "model",
        "worker",
        "events",
        "jvm",
        "compiled_code",
        "runs",
    },
    "doctor": {"algorithms", "center", "wire", "model", "worker", "cluster", "jvm"},
    "jobs": {"monitor", "web", "__version__"},
    "command": {
        "algorithms",
        "cluster",
        "doctor",
        "jobs",
        "lifecycle",
        "monitor",
        "plots",
        "predictors",
        "runs",
        "simulation",
        "trainers",
        "web",
        "wire",
        "__version__",
    },
    "__main__": {"command"},
    "class_archive": {"cluster", "jvm"},
    "lifecycle": {"algorithms", "center", "wire", "model", "worker", "cluster", "events", "monitor", "runs"},
    "web": set(),
    "monitor": {"events", "runs", "web", "wire", "__version__"},
    "plots": {"events", "runs"},
    "guidance": {"algorithms"},
    "simulation": {"algorithms", "center", "record", "wire", "events", "monitor", "plots", "runs"},
    "runs": {"center", "algorithms", "wire", "model", "events"},
    "trainers": {
        "algorithms",
        "center",
        "wire",
        "model",
        "worker",
        "cluster",
        "doctor",
        "lifecycle",
        "monitor",
        "plots",
        "guidance",
        "runs",
        "predictors",
        "events",
        "removed_names",
    },
    "removed_names": set(),
    "moved": set(),
    "accessors": set(),
    "transformers": {"accessors", "cluster", "removed_names"},
    "evaluators": {"accessors", "cluster", "removed_names"},
    "utils": {"cluster", "events", "removed_names", "trainers"},
    "predictors": {"cluster", "removed_names", "model", "worker"},
    "ml": {
        "accessors",
        "algorithms",
        "wire",
        "model",
        "worker",
        "cluster",
        "trainers",
        "lifecycle",
        "monitor",
        "predictors",
        "transformers",
        "moved",
        "__version__",
    },
    "__init__": {"removed_names"},
}
LIBRARIES = {
    "pyspark": {
        "accessors",
        "cluster",
        "command",
        "doctor",
        "jvm",
        "evaluators",
        "ml",
        "predictors",
        "runs",
        "transformers",
        "utils",
    },
    "keras": {
        "command",
        "lifecycle",
        "model",
        "runs",
        "worker",
        "trainers",
        "simulation",
        "ml",
        "predictors",
        "utils",
    },
    "socket": {"web", "wire"},
    "starlette": {"jobs", "monitor", "web"},
    "uvicorn": {"web"},
    "numba": {"wire"},
    "tensorboardX": {"monitor"},
    "mlflow": {"monitor"},
    "prometheus_client": {"monitor"},
}


def files():
    return sorted(SOURCE.rglob("*.py"))


def package_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path):
    """Yield every module that `path` imports at run time, also inside functions."""
    for node in _runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _runtime_nodes(node):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _runtime_nodes(child)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    package = package_of(path)
    own = {name.split(".")[1] for name in imports_of(path) if name.startswith("distkeras.")}
    assert own - {package} <= ALLOWED[package], (
        f"{package} must not import {own - {package} - ALLOWED[package]}"
    )


def name_of(path):
    return ".".join(("distkeras", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def modules_needed(path, names):
    """Return those of the modules `names` that `path` imports, for type checkers too, with their packages.

    A module's own packages are left out: Python imports them before it.
    """
    needed = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            needed |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            # A package is needed for what it defines, not for the modules that lie in it.
            needed |= members & names or {node.module}
    own = name_of(path)
    packages = {name.rpartition(".")[0] for name in needed if name.startswith("distkeras.")}
    return {name for name in (needed | packages) & names if not f"{own}.".startswith(f"{name}.")}


def test_no_modules_import_each_other_in_a_circle():
    names = {name_of(path) for path in files()}
    graph = {name_of(path): modules_needed(path, names) for path in files()}
    graphlib.TopologicalSorter(graph).prepare()  # It raises CycleError, which names the circle.
    assert graph["distkeras.worker.loop"] >= {"distkeras.worker.replica", "distkeras.wire.frames"}


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_is_imported_only_where_it_belongs(library):
    users = {
        package_of(path) for path in files() if library in {name.split(".")[0] for name in imports_of(path)}
    }
    assert users <= LIBRARIES[library]


def test_web_libraries_are_imported_by_the_pages_alone():
    users = {
        path.relative_to(SOURCE).parent
        for path in files()
        if {"starlette", "uvicorn", "anyio"} & {name.split(".")[0] for name in imports_of(path)}
    }
    assert users == {Path("jobs/server"), Path("monitor/dashboard"), Path("web")}


TALKING = [path for path in files() if package_of(path) in ("wire", "web", "jobs")]
"""Modules that read what others send."""


@pytest.mark.parametrize("path", TALKING, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_on_the_wire_is_unpickled_or_evaluated(path):
    if (
        path == SOURCE / "wire" / "serve.py"
    ):  # Reads the driver's own words from a pipe, before the port is open.
        return
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    modules = {name.split(".")[0] for name in imports_of(path)}
    assert not names & {"eval", "exec", "compile", "__import__"}
    assert not modules & {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib"}


@pytest.mark.parametrize("path", TALKING, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_shell_reads_what_others_send(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if any(each.arg == "shell" for each in call.keywords)]
    assert not {ast.unparse(call.func) for call in calls} & {"os.system", "os.popen", "subprocess.getoutput"}


ACTIONS = {"collect", "toArrow", "toPandas", "count", "first", "isEmpty", "parquet"}
"""Methods of DataFrames and readers that run a Spark job."""


def undescribed_actions(node):
    """Yield the calls that run a Spark job, and are not in a `with described(...)`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.With) and any("described(" in ast.unparse(each) for each in child.items):
            continue
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            plain = not child.args or child.func.attr == "parquet"
            if child.func.attr in ACTIONS and plain and ast.unparse(child.func.value) != "gc":
                yield ast.unparse(child)
        yield from undescribed_actions(child)


@pytest.mark.parametrize(
    "path",
    [path for path in files() if package_of(path) in LIBRARIES["pyspark"] - {"runs", "jvm", "class_archive"}],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_spark_jobs_say_in_sparks_web_pages_what_they_are_for(path):
    allowed = {
        # In methods that run in such a block.
        "cluster/stage.py": ["frame.collect()"],
        "evaluators.py": ["dataset.agg(F.avg(F.coalesce(right, F.lit(False)).cast('double'))).first()"],
        "command/doctor.py": ["session.range(1).count()"],  # In a session of the command's own.
    }
    assert [*undescribed_actions(ast.parse(path.read_text()))] == allowed.get(
        str(path.relative_to(SOURCE)), []
    )


def test_importing_the_package_imports_neither_keras_nor_pyspark_nor_a_backend():
    code = "import sys, distkeras; print(*sorted(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) & {
        "keras",
        "pyspark",
        "jax",
        "tensorflow",
        "torch",
        "numpy",
        "numba",
        "pandas",
    }


def test_the_viewer_of_the_page_imports_neither_keras_nor_pyspark():
    code = (
        "import sys, distkeras.monitor.dashboard.app; print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) & {"keras", "pyspark", "jax", "tensorflow", "torch", "pandas", "pyarrow"}


def test_the_job_server_imports_neither_keras_nor_pyspark():
    code = "import sys, distkeras.jobs.server.app; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) & {"keras", "pyspark", "jax", "tensorflow", "torch", "pandas", "pyarrow"}


def test_the_server_process_imports_neither_keras_nor_pyspark():
    code = "import sys, distkeras.wire.serve; print(*sorted(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) & {
        "keras",
        "pyspark",
        "jax",
        "tensorflow",
        "torch",
        "numba",
        "pandas",
        "pyarrow",
    }


def test_a_trainer_and_a_saved_model_do_not_import_tensorflow_beside_another_backend(tmp_path):
    """Its import takes seconds, and Keras asks for it where it serializes. Its own objects still are."""
    code = f"""
import sys, keras, distkeras
from distkeras.trainers.fingerprint import describe_model
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
distkeras.DOWNPOUR(model, keras.optimizers.Adam(), "mse", num_workers=2)
describe_model(model)
model.save({str(tmp_path / "a.keras")!r})
print(*sorted(name for name in sys.modules if "." not in name))
import tensorflow
print(keras.saving.serialize_keras_object([tensorflow.TensorShape([2, None]), tensorflow.float32]))
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    loaded, serialized = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout.splitlines()
    assert {"keras", "jax"} <= set(loaded.split())
    assert "tensorflow" not in loaded.split()
    assert "[2, None]" in serialized
    assert "float32" in serialized


def test_modules_import_of_pyspark_what_its_client_without_java_has_too():
    """`pyspark-client` has no SparkContext: what needs one imports it where it is used."""
    of_client = {"TaskContext", "InheritableThread", "keyword_only"}
    tops = {path: ast.parse(path.read_text()).body for path in files()}
    found = {
        (path.relative_to(SOURCE).as_posix(), name.name)
        for path, top in tops.items()
        for node in top
        if isinstance(node, ast.ImportFrom) and node.module == "pyspark"
        for name in node.names
    }
    assert found
    assert {each for each in found if each[1] not in of_client} == set()


OF_KERAS_ITSELF = {
    "keras.src.backend": {"compute_output_spec"},
    "keras.src.backend.common": {"global_state"},
    "keras.src.models.model": {"inject_functional_model_class"},
    "keras.src.saving": {"serialization_lib"},
    "keras.src.trainers.data_adapters": {
        *("get_data_adapter", "is_grain_dataset", "is_tf_dataset", "is_torch_dataloader"),
    },
    "keras.src.trainers.data_adapters.array_data_adapter": {"can_convert_arrays"},
    "keras.src.trainers.data_adapters.array_slicing": {"convert_to_sliceable"},
    "keras.src.trainers.data_adapters.data_adapter_utils": {"is_tensorflow_ragged"},
    "keras.src.utils": {"module_utils"},
    "keras.src.utils.backend_utils": {"DynamicBackend"},
}
"""Private names that the oldest allowed Keras has too: `make floors` has imported each of them."""


def test_no_private_name_of_keras_is_imported_that_the_oldest_version_may_lack():
    found = {}
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras.src"):
                found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    new = {module: names - OF_KERAS_ITSELF.get(module, set()) for module, names in found.items()}
    assert not any(new.values()), f"Run `make floors`, and list them in OF_KERAS_ITSELF: {new}"


def test_a_job_without_spark_needs_no_pyspark():
    code = "import sys, distkeras.cluster.servers, distkeras.cluster.watch, distkeras.worker.loop; "
    code += "print(*sorted(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pyspark" not in loaded.split()


PUBLIC = ["distkeras"] + [
    ".".join(("distkeras", *path.relative_to(SOURCE).parent.parts, path.stem)).removesuffix(".__init__")
    for path in files()
    if path.name == "__init__.py" or path.parent == SOURCE
]


@pytest.mark.parametrize("name", sorted(set(PUBLIC)))
def test_a_star_import_brings_what_a_module_defines_for_its_users_and_nothing_else(name):
    module, namespace = importlib.import_module(name), {}
    exec(f"from {name} import *", namespace)
    brought = {key: value for key, value in namespace.items() if key != "__builtins__"}
    assert sorted(brought) == sorted(module.__all__)
    foreign = {
        key
        for key, value in brought.items()
        if isinstance(value, ModuleType)
        or (isinstance(value, type | FunctionType) and not value.__module__.startswith("distkeras"))
    }
    assert foreign == set()
    made_here = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and isinstance(value, type | FunctionType) and value.__module__ == name
    }
    assert made_here <= set(module.__all__)
