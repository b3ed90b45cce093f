"""Communication between the workers and the center: frames, authentication, TCP client and server."""

__all__: list[str] = []
