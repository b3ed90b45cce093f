"""Runs a training on Spark: validates and partitions the data, starts the servers and the workers' stage."""

__all__: list[str] = []
