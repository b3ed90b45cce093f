"""The center variable: layout, shards, versions and the ledger of commits. No network I/O."""

from distkeras.center.bad_updates import BadUpdates
from distkeras.center.center import Center
from distkeras.center.checks import ProtocolError
from distkeras.center.config import CenterConfig
from distkeras.center.durable import restore_snapshot, take_snapshot
from distkeras.center.fragmented import Fragmented
from distkeras.center.fragments import Fragments, fragments_of
from distkeras.center.independent import Independent
from distkeras.center.layout import Layout, Segment, server_bounds, shard_bounds, trainable_in
from distkeras.center.making import AnyCenter, make_center
from distkeras.center.region_servers import RegionServers
from distkeras.center.regional import Regional
from distkeras.center.snapshot import Snapshot, SnapshotError

__all__ = [
    "AnyCenter",
    "BadUpdates",
    "Center",
    "CenterConfig",
    "Fragmented",
    "Fragments",
    "Independent",
    "Layout",
    "ProtocolError",
    "RegionServers",
    "Regional",
    "Segment",
    "Snapshot",
    "SnapshotError",
    "fragments_of",
    "make_center",
    "restore_snapshot",
    "server_bounds",
    "shard_bounds",
    "take_snapshot",
    "trainable_in",
]
