"""Communication between the workers and the center: frames, authentication, TCP client and server."""

from distkeras.wire.client import Client, JobStopped, ServerLost
from distkeras.wire.server import Server

__all__ = ["Client", "JobStopped", "Server", "ServerLost"]
