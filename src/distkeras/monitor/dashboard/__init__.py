"""The page of a folder of runs: a process of its own, which reads what trainings have written."""

__all__: list[str] = []
