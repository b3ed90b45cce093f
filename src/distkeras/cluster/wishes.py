"""What the driver has ordered, and which copies of the center it wants: a restarted server is told again."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from distkeras.center.orders import NO_ORDERS, Orders, check_orders
from distkeras.center.requests import Keep, Order


class Wishes:
    """The driver's orders and numbers of rows, and those of them that the server does not have yet.

    From any thread. In an ensemble a member may have orders of its own.

    Args:
        members: number of members of an ensemble; 0 for no ensemble.
    """

    def __init__(self, members: int = 0) -> None:
        self._members = members
        self._lock = threading.Lock()
        self._orders = NO_ORDERS
        self._own: dict[int, Orders] = {}  # by member
        self._kept: set[int] = set()  # Numbers of rows whose copies have not been pulled yet.
        self._to_order: set[int | None] = set()
        self._to_keep: set[int] = set()

    @property
    def untils(self) -> set[int | None]:
        """The numbers of rows, from which answers are held, that have been ordered."""
        with self._lock:
            return {orders.until for orders in (self._orders, *self._own.values())}

    def order(self, changes: dict[str, Any], member: int | None = None) -> None:
        """Change the orders, of one member or of all; those of all change the members' own, too.

        Raises:
            ValueError: a number is out of range, or there is no such member.
        """
        if member is not None and not 0 <= member < self._members:
            raise ValueError(
                f"Expected a member in 0..{self._members - 1}, or None. Received: member={member}"
            )
        with self._lock:
            orders = self._of(member)._replace(**changes)
            check_orders(orders)
            if member is not None:
                self._own[member] = orders
                self._to_order.add(member)
                return
            self._orders = orders
            self._own = {each: own._replace(**changes) for each, own in self._own.items()}
            # Orders for all would undo for a moment what one member has been ordered.
            self._to_order.update(range(self._members) if self._own else [None])

    def keep(self, samples: int) -> None:
        """Ask for a copy of the center at a number of rows."""
        with self._lock:
            self._kept.add(samples)
            self._to_keep.add(samples)

    def pulled(self, samples: int) -> None:
        """Record that a copy has been pulled."""
        with self._lock:
            self._kept.discard(samples)

    def restarted(self) -> None:
        """Record that the server has been restarted: its snapshot may be older than the orders."""
        with self._lock:
            self._to_keep = self._kept.copy()
            if self._own:
                self._to_order = set(range(self._members))
            elif self._orders is not NO_ORDERS:
                self._to_order = {None}

    def unsent(self) -> list[Order | Keep]:
        """Return the requests that tell the server what it does not have yet; it will have it then."""
        with self._lock:
            members, self._to_order = self._to_order, set()
            samples, self._to_keep = self._to_keep, set()
            return [*self._in_order(members), *map(Keep, sorted(samples))]

    def _in_order(self, members: Iterable[int | None]) -> list[Order]:
        listed = sorted(members, key=lambda member: -1 if member is None else member)
        return [Order(self._of(member), member) for member in listed]

    def _of(self, member: int | None) -> Orders:
        return self._orders if member is None else self._own.get(member, self._orders)
