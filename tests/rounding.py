"""Runs the numeric tests as other processors round: `make rounding`.

The tests run once for each setting below: every library with the instructions of an older processor, one
thread or two; and once with rounding errors in the data of Keras's training (see `margins.py`). Each run
must pass. No comparison may use a share of its tolerance that differs by more than `SPREAD` from one
setting to another, or that is above `MOST` and not always the same: it would fail on a processor that is
not here. The cure is data without gradients near zero, whole numbers, double precision, or a larger epsilon
of the optimizer; it is no looser bound.

`python tests/rounding.py tests/worker` runs a part.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NUMERIC = (
    *("tests/algorithms", "tests/center", "tests/simulation", "tests/trainers", "tests/worker"),
    *("tests/wire/test_codecs.py", "tests/wire/test_compiled.py", "tests/wire/test_compression.py"),
    "tests/wire/test_group.py",
    *("tests/spark/test_training.py", "tests/spark/test_ml.py", "tests/spark/test_predictors.py"),
    *("tests/spark/test_evaluators.py", "tests/spark/test_tables.py", "tests/spark/test_utils.py"),
)
SPREAD, MOST = 0.25, 0.9
THREADS = (
    *("NPROC", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
AVX2 = {
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL",
}
PROCESSOR = Path("/proc/cpuinfo")
if PROCESSOR.exists() and "avx512_bf16" in PROCESSOR.read_text():
    # TensorFlow asks the processor, and gives half precision to a oneDNN that may not use it: `fit` aborts.
    AVX2["PYTEST_ADDOPTS"] = "-k 'not mixed_'"
SSE = {
    "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 X86_V3 AVX512_ICL AVX512_SPR",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-AVX",
    # XLA has no half precision on these processors, nor 8 bits: tests of what "the optimizer overwrites".
    "PYTEST_ADDOPTS": "-k 'not mixed_float16 and not optimizer_overwrites'",
}
"""No processor refuses these: a name that it does not know is passed over."""
SETTINGS = {
    "as it is, 2 threads": dict.fromkeys(THREADS, "2"),
    "AVX2, 1 thread": AVX2 | dict.fromkeys(THREADS, "1"),
    "SSE4.2, 2 threads": SSE | dict.fromkeys(THREADS, "2"),
    "nudged data, 1 thread": {"DISTKERAS_NUDGED": "1"} | dict.fromkeys(THREADS, "1"),
}


def used(setting: str, paths: list[str]) -> dict[str, float]:
    """Run the tests of `paths` under `setting`; return the share of its tolerance each comparison uses."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | SETTINGS[setting] | {"DISTKERAS_MARGINS": folder}
        here = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
        options = f"-p margins {environment.get('PYTEST_ADDOPTS', '')}"
        environment |= {"PYTHONPATH": os.pathsep.join(here), "PYTEST_ADDOPTS": options}
        print(f"--- {setting}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
        done = subprocess.run(command, cwd=ROOT, env=environment)
        if done.returncode:
            sys.exit(f"The tests fail with this rounding: {setting}.")
        shares: dict[str, float] = {}
        for file in Path(folder).glob("*.json"):
            backend = file.name.partition("-")[0]
            shares |= {f"{place} ({backend})": share for place, share in json.loads(file.read_text()).items()}
        return shares


def hanging(runs: list[dict[str, float]]) -> list[str]:
    """The comparisons whose outcome hangs on the rounding, in words."""
    found = []
    for place in sorted(set.intersection(*map(set, runs))):
        shares = [run[place] for run in runs]
        if max(shares) - min(shares) > SPREAD or MOST < max(shares) != min(shares):
            found.append(f"{place}: " + ", ".join(f"{share:.2g}" for share in shares))
    return found


def main(paths: list[str]) -> None:
    """Run every setting and judge the comparisons; the exit status says whether all is well."""
    runs = [used(setting, paths) for setting in SETTINGS]
    found = hanging(runs)
    print(f"{len(set.intersection(*map(set, runs)))} comparisons, {len(found)} hang on the rounding.")
    if found:
        sys.exit("Shares of the tolerance under " + "; ".join(SETTINGS) + ":\n" + "\n".join(found))


if __name__ == "__main__":
    main(sys.argv[1:] or list(NUMERIC))
