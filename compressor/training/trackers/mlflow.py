"""MLflow: a run of the experiment `compressor` (MLFLOW_EXPERIMENT_NAME), at MLFLOW_TRACKING_URI or in `mlruns`."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.importing import late
from compressor.training.trackers import Status, Values

_UNFIT = re.compile(r"[^\w\-. :/]")
"""What the name of a metric cannot have."""
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflow:
    """Write metrics by epoch, and the configuration as parameters, by a client of its own: nothing global changes."""

    def begin(self, folder: Path, name: str, params: Mapping[str, str], identifier: str | None, done: int) -> str:
        """Begin a run, or go on in that of the identifier."""
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        entities = late("mlflow.entities")
        place = os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").absolute().as_uri()
        self._client: Any = late("mlflow").MlflowClient(tracking_uri=place)
        self._run = identifier or ""
        if identifier is not None:
            self._client.update_run(identifier, status="RUNNING")
            return identifier
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "compressor"
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        self._run = self._client.create_run(number, run_name=name).info.run_id
        every = [entities.Param(key, value) for key, value in params.items()]
        for start in range(0, len(every), 100):  # at most so many at once
            self._client.log_batch(self._run, params=every[start : start + 100])
        return self._run

    def log(self, epoch: int, values: Values) -> None:
        """Write metrics."""
        metric = late("mlflow.entities").Metric
        now = int(time.time() * 1000)
        every = [metric(_UNFIT.sub("_", name), value, now, epoch) for name, value in values.items()]
        for start in range(0, len(every), 1000):
            self._client.log_batch(self._run, metrics=every[start : start + 1000])

    def end(self, status: Status) -> None:
        """Set the run's status."""
        self._client.set_terminated(self._run, _STATUS[status])


ADAPTER = MLflow
