"""Save and load a Keras model at any address, and open a snapshot of a parameter server as a model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.fragments import fragments_of
from distkeras.center.layout import Layout
from distkeras.runs.folder import Folder, RunError, find_filesystem, hiding
from distkeras.runs.mirror import download, remote_snapshots
from distkeras.wire.redaction import hidden_in_errors
from distkeras.wire.store import Store

if TYPE_CHECKING:
    import keras

    from distkeras.center.snapshot import Snapshot

Address = str | os.PathLike[str]


def save_model(
    model: keras.Model,
    address: Address,
    *,
    overwrite: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Save `model` with its optimizer's state as a `.keras` file, which `keras.saving.load_model` opens too.

    The file gets its name when it is complete: a reader finds the old file or the new one.

    Args:
        model: the model.
        address: the file, with the suffix ".keras", on any filesystem that fsspec or Spark's Hadoop supports:
            "model.keras", "s3://bucket/model.keras", "hdfs:///models/model.keras".
        overwrite: whether to replace an earlier file.
        storage_options: arguments of fsspec's driver, such as keys.

    Raises:
        FileExistsError: the file exists, and `overwrite` is False.
        ValueError: the address has another suffix or no driver, or Keras cannot save the model.
        OSError: the file cannot be written.
    """
    folder, name = _parts(address, storage_options)
    if not overwrite and folder.exists(name):
        raise FileExistsError(
            f"{_shown(address, storage_options)} exists already. To replace it, use overwrite=True."
        )
    with hidden_in_errors(os.fspath(address), storage_options), folder.writing(name) as path:
        model.save(path)


def load_model(
    address: Address,
    *,
    like: keras.Model | None = None,
    member: int | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Return the model at `address`: a `.keras` file, or the newest snapshot in a folder of snapshots.

    Args:
        address: a file as for `save_model`; or the folder that `SnapshotOptions` names, together with `like`.
        like: for a snapshot: a model with the same layers. The result is a copy of it with the weights of the
            snapshot; its optimizer begins anew.
        member: for a snapshot of an ensemble: index of the member.
        custom_objects: classes and functions that the model names, where they are not registered with Keras.
        compile: whether to compile the model as it was saved.
        storage_options: arguments of fsspec's driver.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the address has no driver; Keras cannot load the file; or the snapshot has other weights
            than `like`.
    """
    import keras

    if like is not None:
        copy = _copy_of(like, custom_objects, compile)
        return with_snapshot(copy, os.fspath(address), member=member, storage_options=storage_options)
    folder, name = _parts(address, storage_options)
    with hidden_in_errors(os.fspath(address), storage_options), folder.reading(name) as path:
        return keras.saving.load_model(path, custom_objects=custom_objects, compile=compile)


def _copy_of(model: keras.Model, custom_objects: Mapping[str, Any] | None, compile: bool) -> keras.Model:
    from distkeras.model.saved import save
    from distkeras.model.spec import deserialize_model, serialize_model

    if compile and model.compiled:
        return deserialize_model(serialize_model(model, custom_objects=custom_objects))
    return save(model, custom_objects).open(blank=False)


def with_snapshot(
    model: keras.Model,
    address: str,
    *,
    member: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Return `model` itself, with the weights of the newest snapshot in a folder.

    If several servers held the center, each has a folder of its own there. Their snapshots may be some
    updates apart.

    Args:
        model: a built model.
        address: the folder.
        member: in an ensemble, the member.
        storage_options: arguments of fsspec's driver.

    Raises:
        RunError: there is no snapshot, it does not fit the model, or it is one of an ensemble and `member`
            names none of its members.
    """
    from distkeras.model.weights import layout_of, set_vector

    shown = _shown(address, storage_options)
    with hidden_in_errors(address, storage_options):
        parts = _newest(address, storage_options)
    if not parts:
        raise RunError(f"Expected a snapshot. Received: none at {shown}")
    layout = layout_of(model)
    centers = [_center_of(snapshot, layout, member) for snapshot in parts]
    vector = np.concatenate(centers)
    there = parts[0].settings.get("weights")
    if vector.size != layout.size or there not in (None, described(layout)):
        raise RunError(
            f"Expected a snapshot of the weights of {model.name!r}, {layout.size} elements. Received: "
            f"other weights, {vector.size} elements, at {shown}"
        )
    set_vector(model, vector, layout)
    return model


def described(layout: Layout) -> list[list[Any]]:
    """Return the weights of a layout as the settings of a training name them."""
    return [[segment.path, list(segment.shape)] for segment in layout.segments()]


def _newest(address: str, storage_options: Mapping[str, Any] | None) -> list[Snapshot]:
    """Return the newest snapshot of each server; empty if one has none."""
    folder = Folder(*find_filesystem(address, storage_options))
    if folder.is_shared:
        return _newest_at(address, storage_options)
    with tempfile.TemporaryDirectory(prefix="distkeras-") as local:
        for name in remote_snapshots(folder, ""):
            download(folder, name, Path(local) / name)
        return _newest_at(local, None)


def _newest_at(address: str, storage_options: Mapping[str, Any] | None) -> list[Snapshot]:
    stores = [Store(address, storage_options=storage_options)]
    fs, folder = stores[0].open()
    while fs.exists(f"{folder}/server-{len(stores)}"):
        own = f"{address.rstrip('/')}/server-{len(stores)}"
        stores.append(Store(own, storage_options=storage_options))
    found = [store.newest() for store in stores]
    return [] if None in found else [snapshot for snapshot in found if snapshot is not None]


def _center_of(snapshot: Snapshot, layout: Layout, member: int | None) -> Vector:
    if snapshot.above is not None:
        return snapshot.above.center
    centers = [state.center for state in snapshot.members]
    if len(centers) == 1:
        return centers[0]
    rule = snapshot.settings.get("algorithm") or {}
    if rule.get("fragments", 1) != 1:
        cut = fragments_of(layout, SimpleNamespace(**rule))  # type: ignore[arg-type]  # Two attributes of it.
        return centers[0] if cut is None else cut.whole(centers)
    if member is None or not 0 <= member < len(centers):
        raise RunError(
            f"Expected the index of a member of an ensemble, from 0 to {len(centers) - 1}. "
            f"Received: member={member!r}"
        )
    return centers[member]


def _parts(address: Address, storage_options: Mapping[str, Any] | None) -> tuple[Folder, str]:
    text = os.fspath(address)
    if not text.endswith(".keras"):
        raise ValueError(
            'Expected a file with the suffix ".keras"; for a folder of snapshots, a model in `like`. '
            f"Received: address={_shown(address, storage_options)!r}"
        )
    fs, path = find_filesystem(text, storage_options)
    folder, _, name = path.rpartition("/")
    return Folder(fs, folder), name


def _shown(address: Address, storage_options: Mapping[str, Any] | None) -> str:
    text = os.fspath(address)
    return hiding(text, storage_options)(text)
