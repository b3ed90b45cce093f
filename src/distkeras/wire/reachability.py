"""Try from another machine whether TCP connections to some addresses open."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def connector(addresses: Sequence[tuple[str, int]], seconds: float) -> Callable[[], list[str]]:
    """Return a function that tries to connect to all `addresses` at once.

    It travels by value, so it runs where this package is not installed. It sends nothing.

    Args:
        addresses: host names or addresses, and ports.
        seconds: time limit of a connection.

    Returns:
        A function that returns why each address could not be reached, in their order; "" for one that could.
    """

    def attempts() -> list[str]:
        import socket
        from concurrent.futures import ThreadPoolExecutor

        def attempt(address: tuple[str, int]) -> str:
            try:
                with socket.create_connection(address, seconds):
                    return ""
            except socket.gaierror:
                return f"the name {address[0]!r} does not resolve there"
            except TimeoutError:
                return f"timed out after {seconds:g} s"
            except OSError as error:
                return (error.strerror or str(error)).lower()

        with ThreadPoolExecutor(max(1, len(addresses))) as pool:
            return list(pool.map(attempt, addresses))

    return attempts
