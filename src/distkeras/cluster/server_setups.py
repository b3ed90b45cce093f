"""What each parameter server on an executor is told, and where the others find it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from distkeras.cluster.server_parts import ServerParts
from distkeras.wire.client import ServerAddress
from distkeras.wire.fragment_compression import packing_for
from distkeras.wire.handshake import TOKEN_BYTES
from distkeras.wire.server_place import ServerPlace
from distkeras.wire.store import SnapshotOptions, Store
from distkeras.wire.tls import fingerprint_of, make_tls

if TYPE_CHECKING:
    from distkeras.cluster.server import ServerSetup


def setups_of(parts: ServerParts, places: Sequence[ServerPlace]) -> list[ServerSetup]:
    """Return the settings of each server, as it gets them on its executor."""
    options = parts.setup.options
    tls = make_tls() if options.tls is True else options.tls
    setups: list[ServerSetup] = []
    for index, place in enumerate(places):
        snapshots = options.snapshots
        if snapshots is not None and snapshots.address is None:
            snapshots = _snapshots_at(place, snapshots)
        elif snapshots is not None and index:
            snapshots = replace(snapshots, address=f"{str(snapshots.address).rstrip('/')}/server-{index}")
        part = parts.setup_of(index)
        setups.append(
            replace(
                part,
                host="127.0.0.1",
                bind=options.bind or "0.0.0.0",
                options=replace(options, tls=tls, snapshots=snapshots),
                token=secrets.token_bytes(TOKEN_BYTES),
                moves=True,
            )
        )
    if setups[0].leads:
        leader = address_of(setups[0], places[0], parts.sizes[0])
        setups[1:] = [replace(setup, leader=leader) for setup in setups[1:]]
    return setups


def _snapshots_at(place: ServerPlace, snapshots: SnapshotOptions) -> SnapshotOptions:
    folder = place.folder.under("snapshots")
    return replace(snapshots, address=folder.address, storage_options=folder.storage_options)


def address_of(setup: ServerSetup, place: ServerPlace, size: int) -> ServerAddress:
    options, tls = setup.options, setup.options.tls
    return ServerAddress(
        "",
        0,
        setup.token,
        size,
        checksum=options.checksum,
        tls=None if isinstance(tls, bool) else tls.client,
        pin=b"" if isinstance(tls, bool) else fingerprint_of(tls.server()),
        packing=packing_for(setup.center, setup.compression, size),
        timeout=options.timeout,
        dtype=setup.center.dtype,
        layout=setup.center.layout,
        place=place,
    )


def clear(snapshots: SnapshotOptions | None) -> None:
    """Remove the snapshots that an earlier job has left; those of the first server are known to be gone."""
    if snapshots is not None:
        Store(str(snapshots.address), storage_options=snapshots.storage_options).clear()
