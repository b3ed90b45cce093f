"""`distkeras serve`: a queue of jobs on one machine, for a team without a cluster manager."""

__all__: list[str] = []
