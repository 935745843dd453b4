"""Warm-up, plateau, decay."""

from warmstart.training.schedule import after, rise, schedules


@schedules.register(
    "warmup-stable-decay",
    title="MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies",
    arxiv="2404.06395",
    tags=("schedule", "decays"),
)
def warmup_stable_decay(progress: float, *, warmup: float, decay: float, floor: float) -> float:
    """Rises linearly over `warmup`, stays at the peak, and falls linearly to `floor` over the last `decay`.

    The decay is linear in the budget (the paper's is exponential; Hägele et al., arXiv 2405.18392, find
    linear and 1 - sqrt decays at least as good). Where warm-up and decay overlap, the smaller factor holds.
    """
    return min(rise(progress, warmup), 1 - (1 - floor) * after(progress, max(1 - decay, 0.0)))
