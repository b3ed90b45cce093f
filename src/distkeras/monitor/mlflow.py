"""MLflow: the settings, curves and model of a training as a run of a tracking server or store."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from distkeras.monitor.curves import Curves, Point
from distkeras.monitor.monitors import Monitor, Shown, TrainingFacts

EVERY = 5.0
"""Seconds between two batches: each is a request to the server."""
MOST_METRICS, MOST_PARAMS = 1000, 100
"""What one batch may hold."""
LONGEST_PARAM = 500
"""Longest value of a parameter that all servers take; the rest is in `settings.json`."""
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]")


class MLflow(Monitor):
    """Logs to MLflow: settings as parameters, the curves of the center as metrics, the model as an artifact.

    The step is the number of rows of the center. Settings that are long are in the artifact `settings.json`
    alone. The model is the artifact `model/model.keras`, which `keras.saving.load_model` opens. A resumed
    training goes on with the same run of MLflow; what is trained again is logged again.

    It uses a client with the id of its run, so that it changes no active run of yours.

    Args:
        tracking_uri: address of the server or store. Default: that of `mlflow.set_tracking_uri`, or of the
            environment.
        experiment: name of the experiment of a new run; it is made if there is none.
        run_id: a run to log to, which stays as it is at the end. Default: a new one, which ends with the
            training.
        log_model: whether to log the model at the end.

    Attributes:
        run_id: the id of the run; `None` before there is one.

    Raises:
        ImportError: mlflow is not installed.

    Example:
        ```python
        trainer.train(df, monitor=MLflow("sqlite:///mlflow.db", experiment="mnist"))
        ```
    """

    patience: ClassVar[float] = 60.0

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str = "distkeras",
        run_id: str | None = None,
        log_model: bool = True,
    ) -> None:
        if find_spec("mlflow") is None:
            raise ImportError("Expected the package mlflow: pip install 'distkeras[mlflow]'")
        self._tracking_uri, self._experiment = tracking_uri, experiment
        self._given, self._log_model = run_id, log_model
        self.run_id = run_id

    def begin(self, training: TrainingFacts) -> None:
        """Make the run, or find it, and log the settings."""
        from mlflow.tracking import MlflowClient

        self._curves, self._waiting = Curves(training), list[Any]()
        self._logged = time.monotonic()
        self._members = training.members
        self._client = MlflowClient(tracking_uri=self._tracking_uri)
        self.run_id = self._given or self._earlier(training) or self._new(training)
        self._log_settings(self.run_id, training)

    def take(self, events: Sequence[Shown]) -> None:
        """Log a batch, if the last one was long enough ago."""
        for event in events:
            self._add(self._curves.add(event))
        if time.monotonic() - self._logged >= EVERY:
            self._log_waiting()

    def end(self, result: Mapping[str, Any]) -> None:
        """Log what is left, the reason and the model, and end the run if it was made here."""
        reason = str(result.get("reason"))
        status = {"error": "FAILED", "interrupt": "KILLED"}.get(reason, "FINISHED")
        try:
            self._add(self._curves.flush())
            self._log_waiting()
            self._client.set_tag(self.run_id, "distkeras.reason", reason)
            if self._log_model:
                self._log_models(result.get("models", ()))
        except Exception:
            status = "FAILED"
            raise
        finally:
            if self._given is None:
                self._client.set_terminated(self.run_id, status)

    def _earlier(self, training: TrainingFacts) -> str | None:
        """Return the id of the run of an earlier session, which runs again; `None` if the store has none."""
        from mlflow.exceptions import MlflowException

        known = training.notes.get("mlflow").get("run_id")
        if known is None:
            return None
        try:
            self._client.update_run(known, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return str(known)

    def _new(self, training: TrainingFacts) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = (
            self._client.create_experiment(self._experiment) if found is None else found.experiment_id
        )
        tags = {"distkeras.rule": training.rule, "distkeras.title": training.title}
        if training.run is not None:
            tags["distkeras.run"] = training.run
        made = str(self._client.create_run(experiment, run_name=training.name, tags=tags).info.run_id)
        training.notes.put("mlflow", {"run_id": made})
        return made

    def _log_settings(self, run_id: str, training: TrainingFacts) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(run_id).data.params  # A parameter cannot change: the first value stays.
        params = [
            Param(name, value)
            for name, value in flattened(training.settings)
            if name not in known and len(value) <= LONGEST_PARAM
        ]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run_id, params=params[first : first + MOST_PARAMS])
        self._client.log_dict(run_id, json.loads(json.dumps(training.settings, default=str)), "settings.json")

    def _add(self, points: Iterable[Point]) -> None:
        from mlflow.entities import Metric

        for point in points:
            if point.worker is not None and self._members == 1:
                continue  # Hundreds of curves are for TensorBoard, and for the page of the run.
            member = "" if point.worker is None else f"member-{point.worker}/"
            self._waiting += [
                Metric(
                    _NOT_IN_NAMES.sub("_", member + name), value, int(point.timestamp * 1000), point.samples
                )
                for name, value in point.values.items()
            ]

    def _log_waiting(self) -> None:
        while self._waiting:
            self._client.log_batch(self.run_id, metrics=self._waiting[:MOST_METRICS])
            del self._waiting[:MOST_METRICS]
        self._logged = time.monotonic()

    def _log_models(self, models: Sequence[Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="distkeras-") as folder:
            for member, model in enumerate(models):
                path = Path(folder) / ("model.keras" if len(models) == 1 else f"member-{member}.keras")
                model.save(path)
                self._client.log_artifact(self.run_id, str(path), "model")


def flattened(settings: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield each setting with the path of its name, joined by dots, as texts."""
    if isinstance(settings, Mapping) and settings:
        for key, part in settings.items():
            yield from flattened(part, f"{name}.{key}" if name else str(key))
    else:
        text = settings if isinstance(settings, str) else json.dumps(settings, default=str)
        yield _NOT_IN_NAMES.sub("_", name), text
