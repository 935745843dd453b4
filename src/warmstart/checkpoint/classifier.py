"""Classifiers of texts: an encoder with a head over labels, as transformers keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from warmstart.checkpoint.handle import Checkpoint, quiet_transformers
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def labels_of(config: Mapping[str, Any]) -> list[str] | None:
    """Labels in the order of the head's outputs; None where the checkpoint is no classifier of texts."""
    if not str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification"):
        return None
    named = config.get("id2label") or {}
    return [str(named[key]) for key in sorted(named, key=int)]


def open_classifier(
    checkpoint: Checkpoint, labels: Sequence[str] | None = None, *, seed: int = 0
) -> PreTrainedModel:
    """A checkpoint as a classifier of texts, in evaluation mode and float32.

    One that tells these labels apart already is opened as it is. Any other encoder, a classifier of other
    labels too, keeps its body and gets a fresh head (in BERT also the pooler, where none is stored).

    Args:
        checkpoint: An encoder, with or without a head.
        labels: What to tell apart; those of the checkpoint by default.
        seed: Of a fresh head.

    Raises:
        UserError: No encoder, a checkpoint in a form of its own, no labels known, or a body that is not
            stored whole.
    """
    known = labels_of(checkpoint.config)
    if checkpoint.task != "masked":
        raise UserError(
            f"texts are classified by encoders, and this is a {checkpoint.task} model", where=checkpoint.path
        )
    if checkpoint.form is not None:
        raise UserError(
            "a checkpoint in this form has no classifier",
            where=checkpoint.path,
            fix="`warmstart export` it first",
        )
    if labels is None and known is None:
        raise UserError(
            "this is no classifier of texts", where=checkpoint.path, fix="make one with `train-classifier`"
        )
    if known is not None and (labels is None or list(labels) == known):
        return checkpoint.load_model(as_stored=True)
    assert labels is not None
    return _fresh(checkpoint, list(labels), seed)


def _fresh(checkpoint: Checkpoint, labels: list[str], seed: int) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.default_generator.manual_seed(seed)
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.path,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=checkpoint.trust_remote_code,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                num_labels=len(labels),
                id2label=dict(enumerate(labels)),
                label2id={label: i for i, label in enumerate(labels)},
            )
        except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"no classifier can be made of this {checkpoint.family}", where=checkpoint.path
            ) from error
    prefix = f"{model.base_model_prefix}."
    absent = [*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])]
    body = sorted(name for name in absent if name.startswith(prefix) and "pooler." not in name)
    if body:
        raise UserError(
            f"{len(body)} weights of the encoder are not stored, first {body[0]}", where=checkpoint.path
        )
    return model.eval()
