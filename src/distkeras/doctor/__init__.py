"""What stands in the way of a training, found out before it: findings, in the order to fix them."""

from distkeras.doctor.diagnosis import Diagnosis, Finding, NotReady

__all__ = ["Diagnosis", "Finding", "NotReady"]
