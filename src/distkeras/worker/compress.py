"""Compression of deltas with error feedback: what a codec drops of one message is added to the next."""

from __future__ import annotations

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.messages import Encoded
from distkeras.wire.codecs import Joint, Packing
from distkeras.wire.compression import is_elastic, sends_weights


class Feedback:
    """Compresses the messages of one worker: `m = C(u + e); e <- u + e - m`.

    So the sum of what was fed equals the sum of what was decoded plus the residual `e`, and nothing is lost
    but by the worker's death: its replacement begins with `e = 0`. The statistics, which travel as they are,
    leave no residual. A message that is not finite leaves one that is not finite either.

    Args:
        packing: how messages lie in a frame.
    """

    def __init__(self, packing: Packing | Joint) -> None:
        self._packing = packing
        self._data = np.empty(packing.num_bytes, np.uint8)
        self.residual: Vector = np.zeros(packing.size, np.float32)

    def encode(self, message: Vector) -> Encoded:
        """Return `message`, shape (size,), as it travels, and overwrite it with what the center will decode.

        The bytes are valid until the next call.
        """
        residual = self.residual
        with np.errstate(over="ignore", invalid="ignore"):  # The center refuses what is not finite.
            residual += message
            self._packing.encode(residual, self._data)
            self._packing.decode(self._data, message)
            residual -= message
        return Encoded(self._packing.codec.number, self._data)


def check_compressible(algorithm: Algorithm) -> None:
    """Raise ValueError where what a codec drops of a message would be lost.

    Of a delta it is added to the next one, and an elastic worker keeps it in its own weights.
    """
    if sends_weights(algorithm) and not is_elastic(algorithm):
        raise ValueError(
            f"{algorithm.name} sends weights, and what compression drops of them would be lost. Use "
            "`compression=None`, or a rule that sends deltas (LocalSGD for Averaging), or an elastic one. "
            f"Received: algorithm={algorithm!r}"
        )
