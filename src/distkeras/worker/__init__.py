"""What runs in a Spark task: the feed of rows, the replica of the model, the loop that trains it."""

__all__: list[str] = []
