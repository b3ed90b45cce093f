"""The parts of `convergence.py`: cases, runs, and what is made of them. `kept` is for other grids, too."""
