"""A Keras model on its way from the driver to the workers and back. Knows Keras; no Spark, no socket."""

__all__: list[str] = []
