"""How a training lies on Spark: the data checked and laid out, the servers, the stage of workers."""

__all__: list[str] = []
