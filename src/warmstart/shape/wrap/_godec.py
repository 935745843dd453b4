"""A matrix as a low-rank one and a sparse one."""

from __future__ import annotations

import torch

_ROUNDS, _INNER = 100, 2


def godec(
    matrix: torch.Tensor, rank: int, entries: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """`W ≈ L + S` with `rank(L) <= rank` and `entries` places where S is not zero, in turns.

    L is the projection of W - S on its `rank` strongest directions, which two steps of orthogonal iteration
    improve in every round, from where the last one left them; S holds the largest entries of W - L. It ends
    when the places stay and the error does not fall, or after 100 rounds (GoDec, Zhou & Tao, ICML 2011; the
    steps are those of GreBsmo, 2013).

    DSEE's code keeps, in place of a number of entries, what is above a threshold of 0.01. Where fewer entries
    than wanted are, their smallest is zero and its mask is all ones; a number of places has no such case.

    Args:
        matrix: W `(m, n)`.
        rank: At most min(m, n).
        entries: At most m n.
        generator: Of the first directions.

    Returns:
        L `(m, n)` and the places of S in the flattened matrix, ascending, `(entries,)`.
    """
    start = torch.randn(matrix.shape[1], rank, generator=generator, dtype=torch.float64).to(matrix)
    rest, basis = matrix, torch.linalg.qr(matrix @ start)[0]
    places = torch.empty(0, dtype=torch.int64)
    last = float("inf")
    for _ in range(_ROUNDS):
        for _ in range(_INNER):
            basis = torch.linalg.qr(rest @ (rest.T @ basis))[0]
        low = basis @ (basis.T @ rest)
        found = largest(matrix - low, entries)
        sparse = torch.zeros_like(matrix).flatten()
        sparse[found] = (matrix - low).flatten()[found]
        rest = matrix - sparse.view_as(matrix)
        error = float((rest - low).square().sum())
        if torch.equal(found, places) and error >= last * (1 - 1e-6):
            break
        places, last = found, error
    return low, found


def largest(matrix: torch.Tensor, entries: int) -> torch.Tensor:
    """Places of the entries of largest size in the flattened matrix, ascending."""
    return matrix.abs().flatten().topk(entries).indices.sort().values
