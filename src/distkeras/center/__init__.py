"""The center variable: layout, shards, versions, the ledger of commits. Decides; does no network I/O."""

from distkeras.center.center import Center, ProtocolError, check_quorum
from distkeras.center.independent import Independent
from distkeras.center.layout import Layout, Slot, shard_bounds

__all__ = ["Center", "Independent", "Layout", "ProtocolError", "Slot", "check_quorum", "shard_bounds"]
