"""The five figures of `five_figures.py`, one in each module: `compute`, `table` and `draw`."""
