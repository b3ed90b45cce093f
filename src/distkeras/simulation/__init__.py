"""Simulation with a virtual clock: the same algorithms and center, hundreds of workers in one process."""

from distkeras.simulation.conditions import Failures, Network, Outages, Seconds
from distkeras.simulation.keras_problem import KerasProblem
from distkeras.simulation.problem import Problem, Quadratic, Replica
from distkeras.simulation.regions import Regions
from distkeras.simulation.result import Result
from distkeras.simulation.simulator import simulate
from distkeras.simulation.step_time import Constant, Exponential, Gamma, Heterogeneous, StepTime

__all__ = [
    "Constant",
    "Exponential",
    "Failures",
    "Gamma",
    "Heterogeneous",
    "KerasProblem",
    "Network",
    "Outages",
    "Problem",
    "Quadratic",
    "Regions",
    "Replica",
    "Result",
    "Seconds",
    "StepTime",
    "simulate",
]
