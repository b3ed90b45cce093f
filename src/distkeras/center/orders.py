"""What the driver or the algorithm has decided for the workers: one record that their answers carry."""

from __future__ import annotations

import math
from typing import NamedTuple


class Orders(NamedTuple):
    """What a worker is to do from now on.

    Attributes:
        number: number of the change by the driver, from 1; 0 before the first.
        stop: whether the worker ends after this exchange, as if its data had ended.
        learning_rate: rate of the worker's Keras optimizer, at least 0; `None` for its own.
        window: minibatch steps of the worker's next window; `None` for the algorithm's
            `communication_window`.
        step: step of the learning-rate schedule at the worker's first minibatch. The worker counts on from
            there by its own minibatches, so its replacement finds the same place. `None` for the count of the
            optimizer that the training began with.
        evaluate: number of rows of the copy of the center that the worker is to evaluate, once it sees a new
            number; it sends a `Report`. Workers see the number while there is the copy. `None` for none.
        send_optimizer: any number: once it sees a new one, the worker sends its local state with its next
            commit, in a `Report`. `None` for never.
        until: number of rows of the center from which answers to the workers are held back, until a larger
            number is ordered, or `stop`. `None` for never; `FOREVER` ends a hold for good.
    """

    number: int = 0
    stop: bool = False
    learning_rate: float | None = None
    window: int | None = None
    step: int | None = None
    evaluate: int | None = None
    send_optimizer: int | None = None
    until: int | None = None


NO_ORDERS = Orders()
FOREVER = 2**63 - 1
"""`until` for: hold nothing back any more."""


def changed(before: Orders, after: Orders) -> Orders:
    """Return `after` under the next number; where it is `None`, the orders `before` stay in force."""
    kept = {name: value for name, value in before._asdict().items() if getattr(after, name) is None}
    return after._replace(**kept, number=before.number + 1)


def after_resume(orders: Orders) -> Orders:
    """Return the orders of an interrupted training with which it is resumed, under the next number.

    Rate, window and place in the schedule are part of its course. The rest asked for something at once.
    """
    return orders._replace(number=orders.number + 1, stop=False, evaluate=None, send_optimizer=None)


def check_orders(orders: Orders) -> None:
    """Raise ValueError if `orders` hold a number out of range."""
    rate = orders.learning_rate
    if rate is not None and not 0 <= rate < math.inf:
        raise ValueError(f"`learning_rate` must be at least 0 and finite. Received: learning_rate={rate!r}")
    for name, least in (("window", 1), ("step", 0), ("evaluate", 1), ("send_optimizer", 0), ("until", 1)):
        value = getattr(orders, name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63
        ):
            raise ValueError(f"`{name}` must be an integer of at least {least}. Received: {name}={value!r}")
