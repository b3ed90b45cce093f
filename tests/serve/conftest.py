"""The browser and the runs are those of the tests of the page of runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "monitor"))
