"""Readers of events."""

__all__: list[str] = []
