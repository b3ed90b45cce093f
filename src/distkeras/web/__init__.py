"""What every server of a page shares: who may ask, how it is bound, and how it answers."""

__all__: list[str] = []
