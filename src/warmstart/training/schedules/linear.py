"""Linear decay after the warm-up."""

from warmstart.training.schedule import after, rise, schedules


@schedules.register("linear", title="Linear decay", tags=("schedule", "decays"))
def linear(progress: float, *, warmup: float, decay: float, floor: float) -> float:
    """Rises linearly over `warmup`, then falls linearly to `floor` at the end; `decay` has no effect."""
    return rise(progress, warmup) * (1 - (1 - floor) * after(progress, warmup))
