"""A run that has ended by its own decision, and is not to go on because its script runs once more."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distkeras.cluster.resume import Interrupted
from distkeras.lifecycle.result import BY_ITSELF, TrainingResult

if TYPE_CHECKING:
    from distkeras.lifecycle.keeping import Resume
    from distkeras.runs import Run

logger = logging.getLogger(__name__)


def ended_result(run: Run | None, resume: Resume, settings: Mapping[str, Any]) -> TrainingResult | None:
    """Return the result of a run that is over; `None` for a training that begins or goes on.

    With `resume="auto"` a run is over once it has ended by itself, until a script asks for more: more epochs,
    another learning rate, or another number of workers.

    Args:
        run: the run, before `begin`; `None` for none.
        resume: as in `DistributedTrainer.train`.
        settings: the settings of the training that are known without its data.

    Raises:
        ValueError: the settings differ from those of the run in what may not change.
    """
    if run is None or not run.ended or resume != "auto":
        return None
    stored = run.result
    if stored is None or stored.get("reason") not in BY_ITSELF or not run.has_final:
        return None
    if Interrupted(run.earlier or {}, 0).check(settings, other_workers=True).said:
        return None
    result = TrainingResult.stored(stored)
    logger.warning(
        "The run %s has ended: %s. Its model is returned, and nothing is trained. To continue, ask for more "
        "epochs or pass resume=True.",
        run.address,
        result.detail,
    )
    return result
