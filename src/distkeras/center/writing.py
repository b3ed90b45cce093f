"""Puts a new center in place of the present one, for workers that wait."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.answers import Done, Refused
from distkeras.center.bad_updates import is_finite
from distkeras.center.decisions import Decisions
from distkeras.center.holding import Holding
from distkeras.center.ledger import WorkerRecord
from distkeras.center.requests import Write
from distkeras.center.sharded import Sharded


def write(
    request: Write,
    vector: Sharded,
    decisions: Decisions,
    holding: Holding,
    records: Mapping[int, WorkerRecord],
) -> Done | Refused:
    """Put the center of `request` in place, if no worker trains. Every worker has to join again.

    The caller holds the locks of all `records`.
    """
    if not is_finite(request.center):
        return Refused("the center to write holds NaN or infinity")
    live = {worker for worker, each in records.items() if each.joined and not each.left and not each.lost}
    if not request.allowed and (training := sorted(live - holding.workers)):
        return Refused(
            f"the workers {training} are training: the center can be written only while all workers wait"
        )
    vector.write(decisions.read(), request.center)

    def joined(worker: int) -> Vector:
        center = np.empty(vector.size, vector.dtype)
        vector.pull(decisions.read(), worker, center)
        return center

    has_center = holding.rewrite(joined)
    for worker, record in records.items():
        record.joined = worker in has_center
    decisions.note(request)
    return Done()
