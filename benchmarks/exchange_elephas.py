"""The same exchange with the parameter servers of elephas 7.3, in its own environment. One JSON line each.

Run by `exchange.py --elephas PYTHON`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np

SIZES = (0.5, 2.6)
ROUNDS, COUNT = 5, 10


def measure(kind: str, megabytes: float, port: int) -> dict[str, Any]:
    """Return the milliseconds of one pull and one commit."""
    import keras
    from elephas.parameter.client import BaseParameterClient
    from elephas.parameter.server import HttpServer, SocketServer
    from elephas.utils.serialization import model_to_dict

    size = int(megabytes * 2**20 / 4)
    model = keras.Sequential([keras.Input((size // 8,)), keras.layers.Dense(8, use_bias=False)])
    server_class = {"http": HttpServer, "socket": SocketServer}[kind]
    server = server_class(model_to_dict(model), port, "asynchronous", debug=False)
    server.start()
    client = BaseParameterClient.get_client(kind, port)
    delta = [np.full_like(weight, 1e-6) for weight in model.get_weights()]
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(COUNT):
            client.get_parameters()
            client.update_parameters(delta)
        times.append((time.perf_counter() - started) / COUNT)
    if kind == "http":
        server.stop()
    ms = round(statistics.median(times) * 1e3, 2)
    return {"target": f"elephas {kind}", "megabytes": megabytes, "ms": ms}


def main() -> None:
    """Measure both servers."""
    for index, megabytes in enumerate(SIZES):
        for offset, kind in enumerate(("http", "socket")):
            print(json.dumps(measure(kind, megabytes, 40610 + 2 * index + offset)), flush=True)
    sys.stdout.flush()
    os._exit(0)  # Threads of the socket server wait for their clients for ever.


if __name__ == "__main__":
    main()
