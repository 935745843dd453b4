"""A matrix as a chain of cores: factors of its sizes, and the decomposition."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    import torch


def factors(size: int, count: int) -> list[int]:
    """`count` factors of `size`, as equal as they can be, the larger ones in the middle.

    Primes are dealt, from the largest, to the smallest product so far. 768 is 3·4·4·4·4 and 3072 is
    4·4·8·6·4, as in the paper's configurations.
    """
    products = [1] * count
    for prime in sorted(_primes(size), reverse=True):
        products[products.index(min(products))] *= prime
    places = sorted(range(count), key=lambda k: (abs(k - count // 2), -k))
    found = [1] * count
    for place, value in zip(places, sorted(products, reverse=True)):
        found[place] = value
    return found


def _primes(size: int) -> list[int]:
    found, divisor = [], 2
    while divisor * divisor <= size:
        while size % divisor == 0:
            found.append(divisor)
            size //= divisor
        divisor += 1
    return found + ([size] if size > 1 else [])


def bonds(outputs: Sequence[int], inputs: Sequence[int], limit: int | None = None) -> list[int]:
    """`b_k = min(prod_{m<=k} i_m j_m, prod_{m>k} i_m j_m, limit)` between the cores, k = 1 … n - 1."""
    pairs = [i * j for i, j in zip(outputs, inputs, strict=True)]
    whole = [min(prod(pairs[:k]), prod(pairs[k:])) for k in range(1, len(pairs))]
    return [min(bond, limit) if limit else bond for bond in whole]


def core_sizes(outputs: Sequence[int], inputs: Sequence[int], limit: int | None = None) -> list[int]:
    """Entries of each core, `b_{k-1} i_k j_k b_k`."""
    ends = [1, *bonds(outputs, inputs, limit), 1]
    return [a * i * j * b for a, i, j, b in zip(ends, outputs, inputs, ends[1:])]


def decompose(
    matrix: torch.Tensor, outputs: Sequence[int], inputs: Sequence[int], limit: int | None = None
) -> list[torch.Tensor]:
    """Cores `(b_{k-1}, i_k, j_k, b_k)` of a matrix, by sequential singular value decompositions.

    The matrix `(i_1 … i_n, j_1 … j_n)` is reordered to `(i_1 j_1) … (i_n j_n)`. Cores left of the centre are
    left singular vectors, those right of it right ones, and the central core is what remains: it alone holds
    the scale, and nothing is divided by a singular value. Without a limit the chain is the matrix. The
    released code multiplies by roots of inverse singular values, which explode where one is tiny.

    Args:
        matrix: `(outputs, inputs)`.
        outputs: i_1 … i_n.
        inputs: j_1 … j_n.
        limit: Largest bond dimension; the smallest singular values are cut.

    Raises:
        UserError: Factors that do not multiply to the sizes of the matrix.
    """
    import torch

    if (prod(outputs), prod(inputs)) != tuple(matrix.shape):
        shown = "·".join(map(str, outputs)), "·".join(map(str, inputs))
        raise UserError(f"{shown[0]} by {shown[1]} is not {matrix.shape[0]} by {matrix.shape[1]}")
    count, centre = len(outputs), len(outputs) // 2
    turned = [k for n in range(count) for k in (n, count + n)]
    rest = matrix.reshape(*outputs, *inputs).permute(*turned).reshape(1, -1)
    cut = bonds(outputs, inputs, limit)
    left: list[torch.Tensor] = []
    bond = 1
    for k in range(centre):
        u, s, vt = torch.linalg.svd(rest.reshape(bond * outputs[k] * inputs[k], -1), full_matrices=False)
        rank = min(cut[k], len(s))
        left.append(u[:, :rank].reshape(bond, outputs[k], inputs[k], rank))
        rest, bond = s[:rank, None] * vt[:rank], rank
    right: list[torch.Tensor] = []
    last = 1
    for k in range(count - 1, centre, -1):
        u, s, vt = torch.linalg.svd(rest.reshape(-1, outputs[k] * inputs[k] * last), full_matrices=False)
        rank = min(cut[k - 1], len(s))
        right.insert(0, vt[:rank].reshape(rank, outputs[k], inputs[k], last))
        rest, last = u[:, :rank] * s[:rank], rank
    return [*left, rest.reshape(bond, outputs[centre], inputs[centre], last), *right]
