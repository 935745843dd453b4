"""Constant rate after the warm-up."""

from warmstart.training.schedule import rise, schedules


@schedules.register("constant", title="Constant learning rate", tags=("schedule",))
def constant(progress: float, *, warmup: float, decay: float, floor: float) -> float:
    """Rises linearly over `warmup`, then stays at the peak; `decay` and `floor` have no effect."""
    return rise(progress, warmup)
