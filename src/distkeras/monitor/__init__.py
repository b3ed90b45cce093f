"""Displays of a running training."""

__all__: list[str] = []
