"""A replica for each backend of Keras."""

__all__: list[str] = []
