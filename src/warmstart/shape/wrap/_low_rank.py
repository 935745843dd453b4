"""Two thin factors that begin as the best of a matrix, or as nothing that can still learn."""

from __future__ import annotations

import torch


def best_factors(
    matrix: torch.Tensor,
    rank: int,
    generator: torch.Generator,
    *,
    std: float = 0.02,
    of: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """B `(m, rank)` and A `(rank, n)` whose product is the best approximation of a matrix of that rank.

    `B = U sqrt(S)`, `A = sqrt(S) V^T`. Where a singular value is nothing but rounding, the column of B is
    zero and the row of A is drawn: two zeros would never learn.

    Args:
        matrix: `(m, n)`.
        rank: At most min(m, n) of the directions are found; the rest is drawn.
        generator: Of the drawn rows.
        std: Their standard deviation.
        of: What the matrix is a part of; rounding is measured against it.
    """
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    scale = float(torch.linalg.matrix_norm(matrix if of is None else of))
    found = min(rank, int((s > scale * 1e-10).sum()))
    b, a = zero_factors(matrix, rank, generator, std=std)
    b[:, :found] = u[:, :found] * s[:found].sqrt()
    a[:found] = s[:found, None].sqrt() * vt[:found]
    return b, a


def zero_factors(
    matrix: torch.Tensor, rank: int, generator: torch.Generator, *, std: float = 0.02
) -> tuple[torch.Tensor, torch.Tensor]:
    """B of zeros and A drawn from N(0, std^2): a product that adds nothing yet."""
    drawn = torch.randn(rank, matrix.shape[1], generator=generator, dtype=torch.float64) * std
    return matrix.new_zeros(matrix.shape[0], rank), drawn.to(matrix)
