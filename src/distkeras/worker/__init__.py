"""Code that runs in a Spark task: the feed of rows, the replica of the model, the training loop."""

__all__: list[str] = []
