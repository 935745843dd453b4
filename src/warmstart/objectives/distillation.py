"""Distillation: the next token of the text and what a teacher expects there."""

from __future__ import annotations

from warmstart.objectives._base import objectives
from warmstart.objectives._distilled import DistillationSettings, Distilled
from warmstart.objectives.causal import Causal


@objectives.register(
    "distillation",
    settings=DistillationSettings,
    title="Distilling the Knowledge in a Neural Network",
    arxiv="1503.02531",
    tags=("causal",),
)
class Distillation(Distilled, Causal):
    """Next-token prediction with a teacher: `a CE(text) + b T^2 D(teacher, student)` at each place.

    The teacher is any causal model with the same vocabulary, larger or smaller (rows of padding may differ in
    number: both distributions are those over the rows that they share). For masked and encoder-decoder models
    `distillation` stands for `masked-distillation` and `span-distillation`.

    The settings of the sources:

    - "Where to Begin" (subnetwork selection and distillation; whittle): `alpha: 0.3, beta: 0.7, temperature:
      10, divergence: forward-kl`, optionally `top_k`. Its stored logits give missing tokens -1e9, a zero
      probability; here the tail is a class of its own, so that the divergence stays a lower bound.
    - SALT ("A Little Help Goes a Long Way", arXiv 2410.18779) writes `(1 - w) CE + w CE(p_tau, q)` in its
      first stage, with a teacher smaller than the student, and plain training in the second: `alpha: 1 - w,
      beta: w, teacher_temperature: tau, until: 0.17` (w = 0.667, tau = 0.25, 36 of 208 thousand steps). Its
      soft cross-entropy is forward KL plus the teacher's entropy, a number without a gradient, so the steps
      are the same and the reported loss is lower by w times that entropy. The rate's schedule goes on.
    - SSLD (arXiv 2103.05959) teaches by `divergence: jensen-shannon` alone: `alpha: 0, beta: 1`.

    FLOPs count the teacher's forward pass in the steps in which it teaches, also where a cache saves it.
    """
