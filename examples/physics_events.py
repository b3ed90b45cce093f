"""Writes a table of simulated collisions: 30 measurements an event, a weight, and signal or background.

    python examples/physics_events.py events.csv --rows 250000
    python examples/physics_events.py events.parquet --rows 14900000
    python examples/physics_events.py events --rows 14942208 --files 4

In a signal event, a particle of mass 125 GeV decays to two tau leptons. One of them becomes hadrons ("tau"),
the other one an electron or a muon ("lepton"). In a background event, the same happens to a Z boson of 91
GeV, or a lepton and something that looks like a tau meet by chance. Neutrinos escape: only the sum of their
transverse momenta can be measured, so the mass of the pair has to be guessed. That makes the task hard.

Columns: `event`, a number from 0; 17 measurements and 13 quantities derived from them (`FEATURES`), with
energies in GeV, and -999 where an event has none, such as the second jet of an event with one jet; `weight`,
so that the weights add up to the events that a detector would see in a year (`EXPECTED`); `label`, "s" or
"b". The model is simple, and no detector was simulated: the table looks like a physicist's, and says nothing
about nature.

With `--files`, as many processes write a folder of Parquet files, each of them one. The rows are the same.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

Array = npt.NDArray[np.float64]

MISSING = -999.0
"""What stands where an event has no such quantity."""

CHUNK = 1 << 16
"""Events that are generated at a time. The same seed gives the same chunks, whichever of them are made."""

SHARES = {"signal": 0.34, "boson": 0.40, "chance": 0.26}
"""Shares of the rows."""

EXPECTED = {"s": 700.0, "b": 400_000.0}
"""Sums of the weights of signal and background."""

MEASURED = [
    *("tau_pt", "tau_eta", "tau_phi", "lepton_pt", "lepton_eta", "lepton_phi", "missing_pt", "missing_phi"),
    *(
        "sum_energy",
        "num_jets",
        "jet1_pt",
        "jet1_eta",
        "jet1_phi",
        "jet2_pt",
        "jet2_eta",
        "jet2_phi",
        "jets_pt",
    ),
]
DERIVED = [
    *("mass_collinear", "mass_transverse", "mass_visible", "pair_pt", "pair_distance", "jets_eta_gap"),
    *("jets_mass", "jets_eta_product", "total_pt", "sum_pt", "lepton_tau_ratio", "missing_centrality"),
    "lepton_centrality",
]
FEATURES = [*DERIVED, *MEASURED]


@dataclass(frozen=True)
class Particles:
    """One massless particle an event, or a row of them: transverse momentum, pseudorapidity, azimuth."""

    pt: Array
    eta: Array
    phi: Array

    @property
    def transverse(self) -> Array:
        """The transverse momentum as a vector, shape (2, ...)."""
        vector: Array = self.pt * np.stack([np.cos(self.phi), np.sin(self.phi)])
        return vector

    def mass_with(self, other: Particles) -> Array:
        """Return the invariant mass of the two."""
        angles = np.cosh(self.eta - other.eta) - np.cos(self.phi - other.phi)
        mass: Array = np.sqrt(2 * self.pt * other.pt * angles)
        return mass


@dataclass(frozen=True)
class Events:
    """What is seen of events: two particles, the missing momentum, shape (2, n), and up to three jets."""

    tau: Particles
    lepton: Particles
    missing: Array
    num_jets: Array
    jets: Particles
    """Shape (n, 3), the hardest first; those from `num_jets` on are not there, and have pt 0."""

    def where(self, chosen: npt.NDArray[np.bool_]) -> Events:
        """Return the chosen events."""
        tau, lepton, jets = (
            Particles(each.pt[chosen], each.eta[chosen], each.phi[chosen])
            for each in (self.tau, self.lepton, self.jets)
        )
        return Events(tau, lepton, self.missing[:, chosen], self.num_jets[chosen], jets)


def particles_of(momentum: Array) -> Particles:
    """Return massless particles from momenta, shape (3, n)."""
    x, y, z = momentum
    pt = np.hypot(x, y)
    return Particles(pt, np.arcsinh(z / pt), np.arctan2(y, x))


def draw_jets(kind: str, n: int, rng: np.random.Generator) -> tuple[Array, Particles]:
    """Return the number of jets, and three of them, with pt 0 for those that are not there."""
    number = np.minimum(rng.poisson({"signal": 0.8, "boson": 0.8, "chance": 1.5}[kind], n), 3)
    eta = np.clip(rng.normal(0.0, 1.8, (n, 3)), -4.5, 4.5)
    if kind == "signal":  # In a quarter of the events, two quarks radiate the particle and go on, forward.
        forward = rng.random(n) < 0.25
        side = rng.choice([-1.0, 1.0], n)[:, None] * np.array([1.0, -1.0])
        eta[forward, :2] = (side * (2.2 + np.abs(rng.normal(0.0, 0.8, (n, 2)))))[forward]
        number[forward] = np.maximum(number[forward], 2)
    pt = -np.sort(-(30.0 + rng.exponential(30.0, (n, 3))), axis=1)
    pt[np.arange(3) >= number[:, None]] = 0.0
    return number.astype(np.float64), Particles(pt, eta, rng.uniform(-np.pi, np.pi, (n, 3)))


def decay(mass: Array, transverse: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the momenta, shape (3, n), of two massless particles from one of this mass and momentum."""
    n = mass.size
    longitudinal = np.sqrt(mass**2 + (transverse**2).sum(0)) * np.sinh(rng.normal(0.0, 1.2, n))
    parent = np.stack([*transverse, longitudinal])
    energy = np.sqrt(mass**2 + (parent**2).sum(0))
    cosine, angle = rng.uniform(-1.0, 1.0, n), rng.uniform(-np.pi, np.pi, n)
    sine = np.sqrt(1.0 - cosine**2)
    rest = mass / 2 * np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine])
    one = rest + parent * ((parent * rest).sum(0) / (mass * (mass + energy)) + 0.5)  # The Lorentz boost.
    return one, parent - one


def draw_candidates(kind: str, n: int, rng: np.random.Generator) -> Events:
    """Draw events of a kind, also those that a detector would not keep."""
    number, jets = draw_jets(kind, n, rng)
    recoil = -jets.transverse.sum(2)
    if kind == "chance":  # A W boson's lepton and neutrino, and a jet that is taken for a tau.
        azimuth = rng.uniform(-np.pi, np.pi, n)
        neutrino = 20.0 + rng.exponential(20.0, n)
        opposite = azimuth + rng.normal(np.pi, 0.9, n)
        lepton = Particles(20.0 + rng.exponential(20.0, n), rng.normal(0.0, 1.2, n), azimuth)
        tau = Particles(
            18.0 + rng.exponential(18.0, n), rng.normal(0.0, 1.2, n), rng.uniform(-np.pi, np.pi, n)
        )
        unseen = neutrino * np.stack([np.cos(opposite), np.sin(opposite)])
    else:
        width = (
            rng.normal(0.0, 0.1, n) if kind == "signal" else np.clip(rng.standard_cauchy(n) * 1.25, -30, 30)
        )
        mass = {"signal": 125.0, "boson": 91.2}[kind] + width
        first, second = decay(mass, recoil + rng.normal(0.0, 8.0, (2, n)), rng)
        seen_first, seen_second = rng.beta(3.0, 2.0, n), rng.beta(1.3, 2.2, n)
        tau, lepton = particles_of(seen_first * first), particles_of(seen_second * second)
        unseen = ((1 - seen_first) * first + (1 - seen_second) * second)[:2]
    tau = Particles(tau.pt * rng.normal(1.0, 0.08, n), tau.eta, tau.phi)
    missing = unseen + rng.normal(0.0, 12.0 + 0.05 * jets.pt.sum(1), (2, n))
    return Events(tau, lepton, missing, number, jets)


def draw(kind: str, count: int, rng: np.random.Generator) -> Events:
    """Draw `count` events that a detector keeps: both particles hard enough, and not along the beam."""
    pieces: list[Events] = []
    while sum(piece.num_jets.size for piece in pieces) < count:
        events = draw_candidates(kind, max(64, 4 * count), rng)
        tau, lepton = events.tau, events.lepton
        central = (np.abs(tau.eta) < 2.4) & (np.abs(lepton.eta) < 2.4)
        pieces.append(events.where(central & (tau.pt > 20.0) & (lepton.pt > 22.0)))
    return joined(pieces).where(np.arange(sum(piece.num_jets.size for piece in pieces)) < count)


def joined(pieces: list[Events]) -> Events:
    """Return all events of the pieces."""
    tau, lepton, jets = (
        Particles(
            *(
                np.concatenate([getattr(getattr(piece, name), part) for piece in pieces])
                for part in ("pt", "eta", "phi")
            )
        )
        for name in ("tau", "lepton", "jets")
    )
    missing = np.concatenate([piece.missing for piece in pieces], axis=1)
    return Events(tau, lepton, missing, np.concatenate([piece.num_jets for piece in pieces]), jets)


def collinear_mass(events: Events) -> Array:
    """Guess the mass: as if the neutrinos flew along the particles. Missing where that cannot be."""
    (ax, ay), (bx, by), (mx, my) = events.tau.transverse, events.lepton.transverse, events.missing
    with np.errstate(divide="ignore", invalid="ignore"):
        area = ax * by - ay * bx
        lost_tau, lost_lepton = (mx * by - my * bx) / area, (ax * my - ay * mx) / area
        mass = events.tau.mass_with(events.lepton) * np.sqrt((1 + lost_tau) * (1 + lost_lepton))
    possible = (lost_tau >= 0) & (lost_lepton >= 0) & (mass < 1000.0)
    return np.where(possible, mass, MISSING)


def between(low: Array, high: Array, value: Array) -> Array:
    """Return 1 in the middle between two numbers, 1/e at them."""
    width = np.maximum(np.abs(high - low), 1e-3)
    return np.exp(-4.0 * ((value - (low + high) / 2) / width) ** 2)


def azimuth_between(a: Array, b: Array) -> Array:
    """Return b - a, from -pi to pi."""
    return (b - a + np.pi) % (2 * np.pi) - np.pi


def derive(events: Events) -> dict[str, Array]:
    """Return what physicists derive from the measurements."""
    tau, lepton, jets = events.tau, events.lepton, events.jets
    missing_pt, missing_phi = np.hypot(*events.missing), np.arctan2(events.missing[1], events.missing[0])
    pair = tau.transverse + lepton.transverse + events.missing
    first, second = (Particles(jets.pt[:, i], jets.eta[:, i], jets.phi[:, i]) for i in (0, 1))
    whole = azimuth_between(tau.phi, lepton.phi)
    two = {
        "jets_eta_gap": np.abs(first.eta - second.eta),
        "jets_mass": first.mass_with(second),
        "jets_eta_product": first.eta * second.eta,
        "lepton_centrality": between(first.eta, second.eta, lepton.eta),
    }
    return {
        "mass_collinear": collinear_mass(events),
        "mass_transverse": np.sqrt(2 * lepton.pt * missing_pt * (1 - np.cos(lepton.phi - missing_phi))),
        "mass_visible": tau.mass_with(lepton),
        "pair_pt": np.hypot(*pair),
        "pair_distance": np.hypot(tau.eta - lepton.eta, whole),
        "total_pt": np.hypot(*(pair + jets.transverse.sum(2))),
        "sum_pt": tau.pt + lepton.pt + jets.pt.sum(1),
        "lepton_tau_ratio": lepton.pt / tau.pt,
        # Neutrinos of the two lie between them; of a chance pair, anywhere.
        "missing_centrality": np.cos(azimuth_between(tau.phi + whole / 2, missing_phi)),
    } | {name: np.where(events.num_jets >= 2, value, MISSING) for name, value in two.items()}


def measure(events: Events) -> dict[str, Array]:
    """Return the 30 measurements by name, each of shape (n,)."""
    found = derive(events)
    for name, particles in (("tau", events.tau), ("lepton", events.lepton)):
        found |= {f"{name}_pt": particles.pt, f"{name}_eta": particles.eta, f"{name}_phi": particles.phi}
    for index in (0, 1):
        for part in ("pt", "eta", "phi"):
            value = getattr(events.jets, part)[:, index]
            found[f"jet{index + 1}_{part}"] = np.where(events.num_jets > index, value, MISSING)
    found["missing_pt"] = np.hypot(*events.missing)
    found["missing_phi"] = np.arctan2(events.missing[1], events.missing[0])
    found["num_jets"], found["jets_pt"] = events.num_jets, events.jets.pt.sum(1)
    found["sum_energy"] = found["sum_pt"] + found["missing_pt"]
    return found


def chunk(index: int, rows: int, of: int, seed: int) -> pa.RecordBatch:
    """Generate one chunk of a table of `of` rows, in an order that tells nothing."""
    rng = np.random.default_rng([seed, index])
    counts = rng.multinomial(rows, list(SHARES.values()))
    events = joined([draw(kind, count, rng) for kind, count in zip(SHARES, counts, strict=True)])
    signal = np.arange(rows) < counts[0]
    share = np.where(signal, SHARES["signal"], 1 - SHARES["signal"])
    weight = np.where(signal, EXPECTED["s"], EXPECTED["b"]) / (share * of) * rng.gamma(4.0, 0.25, rows)
    order = rng.permutation(rows)
    found = measure(events)
    columns = {name: found[name].astype(np.float32).round(3)[order] for name in FEATURES}
    return pa.RecordBatch.from_pydict(
        {
            "event": np.arange(rows) + index * CHUNK,
            **columns,
            "weight": weight[order].astype(np.float32),
            "label": np.where(signal, "s", "b")[order],
        }
    )


def generate(rows: int, seed: int = 0) -> Iterator[pa.RecordBatch]:
    """Yield a table of `rows` events in chunks of at most `CHUNK` rows.

    Raises:
        ValueError: `rows` is not a positive number.
    """
    check(rows)
    return chunks(rows, seed, 0, 1)


def check(rows: int) -> None:
    """Raise ValueError if `rows` is not a positive number."""
    if rows < 1:
        raise ValueError(f"Expected a positive number of rows. Received: rows={rows!r}")


def chunks(rows: int, seed: int, first: int, step: int) -> Iterator[pa.RecordBatch]:
    """Yield the chunks `first`, `first + step`, ... of a table of `rows` events."""
    for index in range(first, -(-rows // CHUNK), step):
        yield chunk(index, min(CHUNK, rows - index * CHUNK), rows, seed)


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Write the table: Parquet if the name ends so, else CSV. One chunk is in memory at a time."""
    write_batches(path, generate(rows, seed))


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write batches, at least one, to a file."""
    batches = iter(batches)
    first = next(batches)
    writer = pq.ParquetWriter if path.suffix == ".parquet" else csv.CSVWriter
    with writer(path, first.schema) as file:
        file.write_batch(first)
        for batch in batches:
            file.write_batch(batch)


def write_files(folder: Path, rows: int, files: int, seed: int = 0) -> None:
    """Write the table as a folder of Parquet files, each by a process of its own.

    Chunk i goes to file i modulo `files`. So the files have equal numbers of rows if `rows` is a multiple of
    `files * CHUNK`.

    Raises:
        ValueError: `rows` is not a positive number, or there would be files without rows.
    """
    check(rows)
    if not 1 <= files <= -(-rows // CHUNK):
        raise ValueError(
            f"Expected 1 to {-(-rows // CHUNK)} files for {rows} rows: each has at least one chunk of up to "
            f"{CHUNK} rows. Received: files={files!r}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(files) as pool:
        pool.starmap(write_file, [(folder, rows, index, files, seed) for index in range(files)], chunksize=1)


def write_file(folder: Path, rows: int, index: int, files: int, seed: int) -> None:
    """Write one of the files of `write_files`."""
    write_batches(folder / f"part-{index:05}.parquet", chunks(rows, seed, index, files))


def main() -> None:
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path, help="a file whose name ends in .csv or .parquet; a folder")
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--files", type=int, help="write a folder of as many Parquet files at the same time")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.files is None:
        write(args.path, args.rows, args.seed)
        written = [args.path]
    else:
        write_files(args.path, args.rows, args.files, args.seed)
        written = list(args.path.glob("*.parquet"))
    size = sum(file.stat().st_size for file in written)
    print(f"{args.rows} events in {args.path}, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
