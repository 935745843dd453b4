"""A comparison as a real run would write it, made from power laws."""

from __future__ import annotations

import numpy as np

from warmstart.evaluation.curves import Curve, CurvePoint
from warmstart.evaluation.results import Arm, Claim, ComparisonResult, Interval, Saving

TOKENS = 819_200
_ARMS = {  # name: description, loss at the start, amplitude, exponent, lowest loss
    "scratch": ("fresh weights, the target tokenizer", 7.9, 3.4, 0.78, 1.86),
    "random-rows": ("copied body, rows drawn at random", 6.8, 2.3, 0.85, 1.86),
    "mean-of-pieces": ("copied body, each row the mean of its source pieces", 4.4, 1.2, 0.75, 1.89),
    "focus": ("copied body, rows mixed by similarity in auxiliary vectors", 3.9, 1.06, 0.74, 1.87),
}


def _interval(values: list[float]) -> Interval:
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    half = 4.303 * spread / np.sqrt(len(values))
    return Interval(mean=mean, low=mean - half, high=mean + half, per_seed=values)


def _curve(name: str, seed: int) -> Curve:
    _, start, amplitude, power, floor = _ARMS[name]
    rng = np.random.default_rng([seed, sum(map(ord, name))])
    points = []
    for fraction in (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        tokens = int(TOKENS * fraction)
        loss = floor + amplitude * (1 + tokens / 40_000) ** -power if tokens else start
        points.append(
            CurvePoint(
                step=tokens // 2048,
                tokens=tokens,
                seconds=tokens / 5200 * (1 + 0.02 * seed) * (1.1 if name == "focus" else 1),
                flops=tokens * 3.6e7,
                bpb=loss + rng.normal(0, 0.012),
                train_loss=loss * 2 if tokens else None,
            )
        )
    return Curve(seed=seed, points=points)


def _saving(arm: list[Curve], base: list[Curve], axis: str) -> Saving:
    costs, ratios = [], []
    for own, other in zip(arm, base):
        hit = next((i for i, p in enumerate(own.points) if p.bpb <= other.final), None)
        if not hit:
            return Saving(axis=axis, reached=False, cost=None, ratio=None)
        a, b = own.points[hit - 1], own.points[hit]
        share = (a.bpb - other.final) / (a.bpb - b.bpb)
        cost = getattr(a, axis) + share * (getattr(b, axis) - getattr(a, axis))
        costs.append(cost)
        ratios.append(cost / getattr(other.points[-1], axis))
    return Saving(axis=axis, reached=True, cost=_interval(costs), ratio=_interval(ratios))


def comparison(seeds: tuple[int, ...] = (0, 1, 2), arms: tuple[str, ...] = tuple(_ARMS)) -> ComparisonResult:
    """Four arms on German captions, the warm starts cheaper."""
    base = [_curve("scratch", seed) for seed in seeds]
    found = []
    for name in arms:
        curves = [_curve(name, seed) for seed in seeds]
        own = (
            []
            if name == "scratch"
            else [_saving(curves, base, axis) for axis in ("tokens", "flops", "seconds")]
        )
        found.append(
            Arm(
                name=name,
                description=_ARMS[name][0],
                learning_rate=1e-3 if name == "scratch" else 5e-4,
                learning_rates={"0.00025": 2.31, "0.0005": 2.22, "0.001": 2.27},
                curves=curves,
                final_bpb=_interval([c.final for c in curves]),
                savings=own,
                sample=" steht auf einer Straße und hält einen Hund an der Leine. Zwei Männer in roten "
                "Hemden spielen Fußball <b>auf</b> dem Feld & lachen.",
                extra={
                    "parameters": 6_291_456,
                    "start seconds of the surgery": 1.73,
                    "start copied rows": 0.41,
                },
            )
        )
    source = {
        "operation": "train",
        "data": {"multi30k/en": "a91bd04c12aa"},
        "parents": [],
        "measured": {"bits per byte after": 1.312},
    }
    return ComparisonResult(
        name="en-de",
        title="English captions → German captions, 6M-parameter decoder",
        sentence="Starting from an existing model (focus) reaches the loss of training from scratch "
        "(scratch) with 16% of the training tokens, 6.1 times fewer.",
        verdict="partly",
        claims=[
            Claim(
                text="The best initialiser reaches scratch's final held-out bits per byte with at most a "
                "quarter of the tokens.",
                holds=True,
                measured="focus needs 16.3% of the tokens (95 % interval 14.9% to 17.8%, 3 seeds)",
            ),
            Claim(
                text="Copied body with random rows needs at most 20 %.",
                holds=False,
                measured="random-rows needs 37.0% of the tokens (95 % interval 33.1% to 40.2%, 3 seeds)",
            ),
            Claim(
                text="FOCUS starts below mean-of-pieces.",
                holds=None,
                measured="focus 2.551 against mean-of-pieces 2.548 bits per byte at the start, within noise",
            ),
        ],
        scale="small",
        date="2026-11-20",
        baseline="scratch",
        arms=found,
        seeds=list(seeds),
        sample_prompt="Ein Mann in einer blauen Jacke",
        sample_before=" is standing on a street holding a dog on a leash and looking at the camera.",
        lineage={
            "operation": "train",
            "data": {"multi30k/de": "77f0c2e19b40"},
            "measured": {"bits per byte before": 2.551, "bits per byte after": 1.648},
            "parents": [
                {
                    "name": "transplanted",
                    "fingerprint": "5c02aa7710de9f33",
                    "role": "source",
                    "hub_id": None,
                    "lineage": {
                        "operation": "transplant",
                        "data": {"multi30k/de": "77f0c2e19b40"},
                        "measured": {},
                        "parents": [
                            {
                                "name": "captions-en",
                                "fingerprint": "0d7e11c9ab34ee10",
                                "role": "source",
                                "hub_id": None,
                                "lineage": source,
                            },
                            {
                                "name": "de-bpe-8k",
                                "fingerprint": "99aa01b2c3d4",
                                "role": "tokenizer",
                                "hub_id": None,
                                "lineage": None,
                            },
                        ],
                    },
                }
            ],
        },
        settings={
            "corpus": {"path": "multi30k/de"},
            "baseline": "scratch",
            "learning_rates": [2.5e-4, 5e-4, 1e-3],
            "train": {"max_tokens": TOKENS, "block_size": 128, "lr_scheduler_type": "warmup_stable_decay"},
            "seeds": list(seeds),
        },
        data={"multi30k/de": "77f0c2e19b40d1aa", "multi30k/en": "a91bd04c12aa77f0"},
        machine={"processor": "AMD EPYC", "cores": 2, "python": "3.11.7", "torch": "2.13.0", "bf16": True},
        systems=[19, 23],
        tables=[
            {
                "title": "Speed of the surgery",
                "columns": ["initialiser", "seconds", "peak memory (MB)"],
                "rows": [["mean-of-pieces", 0.41, 812], ["focus", 1.73, 1240], ["wechsel", None, 1311]],
            }
        ],
    )
