"""Which number has how many bytes while a model learns: one row per way to use small floating-point types."""

from __future__ import annotations

from dataclasses import dataclass

from warmstart.foundation.errors import UserError, nearest


@dataclass(frozen=True)
class Numerics:
    """Bytes per number.

    Attributes:
        name: Value of the setting `precision`.
        weight: Bytes per weight that the forward pass reads.
        gradient: Bytes per gradient, with a float32 sum of micro-batches where one is kept.
        master: Bytes per weight of a second, exact copy that the optimizer changes.
        moment: Bytes per entry of the optimizer's state.
        cast: Bytes per weight of the small copy that autocast makes for each pass.
        compute: Bytes per number that matrix products read and write.
        residual: Bytes per number of the residual stream.
        probability: Bytes per attention probability where attention stores them: softmax runs in float32.
        fused: Whether norms, activation functions and softmax are single kernels that keep only their input,
            as in Megatron; transformers composes some of them of several operations that each keep theirs.
        type: torch name of the type that matrix products run in.
    """

    name: str
    weight: int
    gradient: int
    master: int
    moment: int
    cast: int
    compute: int
    residual: int
    probability: int
    fused: bool
    type: str

    @property
    def state(self) -> int:
        """Bytes per parameter of weights, gradients and AdamW's state: 20 for `megatron`, 16 for `mixed`."""
        return self.weight + self.gradient + self.master + 2 * self.moment


NUMERICS = {
    numerics.name: numerics
    for numerics in (
        Numerics("float32", 4, 4, 0, 4, 0, 4, 4, 4, False, "float32"),
        Numerics("mixed", 4, 4, 0, 4, 2, 2, 4, 6, False, "bfloat16"),
        Numerics("megatron", 2, 2 + 4, 4, 4, 0, 2, 2, 2, True, "bfloat16"),
        Numerics("bfloat16", 2, 2, 0, 2, 0, 2, 2, 6, False, "bfloat16"),
    )
}
"""`float32`: everything. `mixed`: float32 weights under autocast to bfloat16, as in accelerate and here.
`megatron`: bfloat16 weights and gradients beside float32 weights, gradient sums and moments, as in MT-NLG.
`bfloat16`: everything in bfloat16."""


def numerics_of(name: str) -> Numerics:
    """The row called `name`; an unknown name raises `UserError`."""
    if name not in NUMERICS:
        raise UserError(f"unknown precision {name!r}", fix=nearest(name, NUMERICS))
    return NUMERICS[name]
