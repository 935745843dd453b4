"""Inputs of `rows_speed.py`, all from one seed, written in blocks so that the writer stays small."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NEEDS = {
    "wechsel": ("rows", "source_vectors", "target_vectors"),
    "focus": ("rows", "target_vectors", "pairs"),
    "omp": ("rows", "donor", "pairs"),
    "clp": ("rows", "donor", "pairs"),
}
"""Files of each method, without their ending; a side loads no others."""


def write_inputs(folder: Path, source: int, target: int, width: int, dim: int, donor_width: int) -> None:
    """Rows, clustered token vectors, rows of a donor model, and a list of shared tokens.

    Half of the target tokens are shared with the source. Every 50th target token has no vector. The first
    `donor_width` dimensions of a shared token's source row are its donor row, so that those of a finished row
    show how well a method that rebuilds donor rows has done so.

    Args:
        folder: Where the `.npy` files go.
        source: Source tokens.
        target: Target tokens.
        width: Dimensions of the rows.
        dim: Dimensions of the given vectors.
        donor_width: Dimensions of the donor's rows; at most `width`.
    """
    rng = np.random.default_rng(0)
    rows = _new(folder / "rows.npy", source, width)
    for part in _blocks(rows):
        rng.standard_normal(part.shape, dtype=np.float32, out=part)
        part *= 0.1
    vectors = rng.standard_normal((5000, dim), dtype=np.float32)
    _clustered(folder / "source_vectors.npy", source, vectors, rng)
    there = _clustered(folder / "target_vectors.npy", target, vectors, rng)
    there[::50] = 0
    shared = np.sort(rng.choice(target, target // 2, replace=False))
    pairs = np.stack([shared, rng.choice(source, target // 2, replace=False)], axis=1)
    np.save(folder / "pairs.npy", pairs)
    centres = rng.standard_normal((5000, donor_width), dtype=np.float32) * np.float32(0.1)
    donor = _clustered(folder / "donor.npy", target, centres, rng)
    for start in range(0, len(pairs), 8192):
        part = pairs[start : start + 8192]
        rows[part[:, 1], :donor_width] = donor[part[:, 0]]


def _clustered(path: Path, count: int, centres: np.ndarray, rng: np.random.Generator) -> np.memmap:
    """Vectors around random `centres`, all of them a little to one side, as trained ones are."""
    out, spread = _new(path, count, centres.shape[1]), centres.std()
    for part in _blocks(out):
        noise = rng.standard_normal(part.shape, dtype=np.float32)
        part[:] = centres[rng.integers(0, len(centres), len(part))] + spread * (1.2 * noise + 0.3)
    return out


def _new(path: Path, count: int, width: int) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, width))


def _blocks(matrix: np.ndarray) -> list[np.ndarray]:
    return [matrix[start : start + 8192] for start in range(0, len(matrix), 8192)]
