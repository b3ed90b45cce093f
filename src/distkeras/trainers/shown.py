"""What monitors learn at the beginning of a training."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from distkeras.lifecycle.plan import Plan
from distkeras.monitor.monitors import TrainingFacts
from distkeras.runs.settings import plain

if TYPE_CHECKING:
    from distkeras.lifecycle.keeping import Keeping
    from distkeras.trainers.beginning import Beginning
    from distkeras.trainers.configured import Configured


def shown_of(
    trainer: Configured,
    keeping: Keeping,
    begun: Beginning,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> TrainingFacts:
    """Return what monitors learn of a training that has begun.

    Args:
        trainer: the trainer.
        keeping: what the training keeps.
        begun: its beginning.
        settings: the settings that a resumed training compares, plain JSON.
        facts: further ones, which may be objects, and have secrets.
    """
    plan = Plan(begun.rows, begun.num_epoch)
    behind = plan.end_of(begun.first - 1)
    run, rule, workers = keeping.run, trainer.algorithm.name, trainer.num_workers
    now = f"{datetime.now():%Y%m%d-%H%M%S}"
    address = None if run is None else run.address
    return TrainingFacts(
        title=f"{type(trainer).__name__}, {workers} worker{'s' if workers > 1 else ''}",
        name=f"{rule}-{now}" if address is None else address.rstrip("/").rpartition("/")[2],
        rule=rule,
        num_workers=workers,
        rows=begun.rows[0],
        epochs=trainer.num_epoch,
        settings={**settings, **plain(facts, keeping.hidden)},
        run=address,
        first_epoch=begun.first,
        behind=behind,
        target=behind + plan.end_of(begun.num_epoch - 1),
        members=max(1, len(begun.member_rows)),
        is_resumed=run is not None and run.resumed,
        source=keeping.start.source,
        notes=keeping.notes,
    )
