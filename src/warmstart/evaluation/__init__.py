"""What a model is worth: bits per byte, savings against a baseline, seeds and intervals."""

from warmstart.evaluation.bits import BpbResult, bits_per_byte
from warmstart.evaluation.curves import Curve, CurvePoint
from warmstart.evaluation.results import (
    Arm,
    Claim,
    ComparisonResult,
    Interval,
    Saving,
)
from warmstart.evaluation.samples import generate_sample
from warmstart.evaluation.saving import cost_to_reach, interval, savings

__all__ = [
    "Arm",
    "BpbResult",
    "Claim",
    "ComparisonResult",
    "Curve",
    "CurvePoint",
    "Interval",
    "Saving",
    "bits_per_byte",
    "cost_to_reach",
    "generate_sample",
    "interval",
    "savings",
]
