"""What goes around a training: validation, callbacks, stopping, the result. It runs on the driver."""

__all__: list[str] = []
