"""Half a cosine after the warm-up."""

import math

from warmstart.training.schedule import after, rise, schedules


@schedules.register(
    "cosine",
    title="SGDR: Stochastic Gradient Descent with Warm Restarts",
    arxiv="1608.03983",
    tags=("schedule", "decays"),
)
def cosine(progress: float, *, warmup: float, decay: float, floor: float) -> float:
    """Rises linearly over `warmup`, then falls as half a cosine to `floor`, without restarts."""
    fall = 0.5 * (1 + math.cos(math.pi * after(progress, warmup)))
    return rise(progress, warmup) * (floor + (1 - floor) * fall)
