"""A worker's side of an algorithm: its messages, and what it makes of the replies."""

from __future__ import annotations

import numpy as np

from distkeras.algorithms import Algorithm, State, Vector
from distkeras.center.answers import Exchanged
from distkeras.center.fragments import Fragments


class WorkerSide:
    """Applies an algorithm to what a worker exchanges: the whole vector, or its fragments.

    The algorithm sees the trainable elements only. Statistics travel behind them, unchanged.

    Args:
        algorithm: the distributed optimizer.
        num_trainable: number of leading elements of the vector that the algorithm updates.
        fragments: parts of the vector that are exchanged in turn; `None` for the whole vector at once.

    Attributes:
        adopts_by_message: whether `adopted` needs the message as it was sent.
    """

    def __init__(self, algorithm: Algorithm, num_trainable: int, fragments: Fragments | None) -> None:
        self._algorithm, kind = algorithm, type(algorithm)
        defaults = kind.adopt is Algorithm.adopt and kind.adopt_with is Algorithm.adopt_with
        self.adopts_by_message = not defaults
        self._fragments = fragments
        self._splits = (
            [num_trainable]
            if fragments is None
            else [fragments.num_trainable(fragment, num_trainable) for fragment in range(len(fragments))]
        )

    def part(self, vector: Vector, fragment: int) -> Vector:
        """Return the elements of a fragment: a view if they are contiguous in `vector`, else a copy."""
        return vector if self._fragments is None else self._fragments.gather(vector, fragment)

    def message(self, local: Vector, anchor: Vector, num_steps: int, fragment: int, memory: State) -> Vector:
        """Return the message of a fragment, from the worker's weights and anchor, which are whole vectors.

        Args:
            local: the worker's weights.
            anchor: the weights from which the algorithm counts its progress.
            num_steps: minibatches behind the message.
            fragment: index of the fragment; 0 without fragments.
            memory: what the algorithm keeps in the worker for this fragment; it may change.
        """
        split, part, start = self._splits[fragment], local, anchor
        if self._fragments is not None:
            part, start = self.part(local, fragment), self.part(anchor, fragment)
        if split == part.size:
            return self._algorithm.commit_with(part, start, num_steps, memory)
        message = np.empty_like(part)
        message[:split] = self._algorithm.commit_with(part[:split], start[:split], num_steps, memory)
        message[split:] = part[split:]
        return message

    def adopted(
        self, local: Vector, message: Vector, answer: Exchanged, fragment: int, memory: State
    ) -> Vector:
        """Return the weights of a fragment from which the worker continues after `answer`.

        Args:
            local: the worker's weights, the whole vector.
            message: the message that was answered.
            answer: its answer.
            fragment: as in `message`.
            memory: as in `message`.
        """
        if answer.restart:  # The reply itself was lost with its connection; this is the center.
            return answer.reply
        split, reply = self._splits[fragment], answer.reply
        part = local if self._fragments is None else self.part(local, fragment)
        if split == part.size:
            return self._algorithm.adopt_with(part, message, reply, memory)
        weights = reply.copy()
        weights[:split] = self._algorithm.adopt_with(part[:split], message[:split], reply[:split], memory)
        return weights

    def anchor(self, adopted: Vector, answer: Exchanged) -> Vector:
        """Return the next anchor of a fragment, whose weights are `adopted` after `answer`."""
        return answer.reply if self._algorithm.anchor_at_reply else adopted
