"""Displays of a running training, and what takes its events elsewhere."""

from __future__ import annotations

from distkeras.monitor.curves import Curves, Point
from distkeras.monitor.dashboard.starting import Dashboard
from distkeras.monitor.mlflow import MLflow
from distkeras.monitor.monitors import Monitor, TrainingFacts
from distkeras.monitor.prometheus import Prometheus
from distkeras.monitor.tensorboard import TensorBoard

__all__ = ["Curves", "Dashboard", "MLflow", "Monitor", "Point", "Prometheus", "TensorBoard", "TrainingFacts"]
