"""Transplant: the same model with another vocabulary. Checkpoint in, checkpoint out."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.initialise import initialise
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.settings import InitialiseSettings, TransplantSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.checkpoint import Checkpoint
    from warmstart.vocabulary.computed import Which

__all__ = ["InitialiseSettings", "TransplantSettings", "initialise", "row_mix", "transplant"]


def transplant(
    settings: TransplantSettings,
    out: Path,
    *,
    replace: bool = False,
    aux: dict[Any, Any] | None = None,
) -> Checkpoint:
    """Give a checkpoint a new tokenizer and the rows that go with it.

    One [`RowMix`][warmstart.vocabulary.mix.RowMix] from the chosen initialiser fills the input rows, the head
    rows (the same matrix when tied) and the head bias. Special tokens are copied by role, whatever their
    strings; unmatched ones and padding rows get the mean row. All other weights stay bit-equal, except the
    position table of families that count positions from the padding id, which is moved when that id changes.
    Ids in config and generation_config follow their roles. An encoder without a language-model head stays
    without one.

    Args:
        settings: Source, tokenizer, initialiser and its data.
        out: Folder to create.
        replace: Whether an existing folder may be replaced.
        aux: Cache of auxiliary spaces to share between calls.

    Returns:
        The new checkpoint; `lineage.measured` holds counts and norms per kind of row, `lineage.parents` the
        source and the checkpoints that the initialiser used, `lineage.data` fingerprints of all else it read.

    Raises:
        UserError: For unusable input, or when the new model would not fit into memory.
    """
    from warmstart.checkpoint import Lineage, resolve, save_checkpoint
    from warmstart.checkpoint.inputs import inputs_of
    from warmstart.vocabulary.opening import check_opening, open_tokenizer
    from warmstart.vocabulary.surgery import (
        as_rows,
        move_padding,
        replace_vocabulary,
        shift_positions,
        translate_ids,
        vocabulary_tensors,
    )

    started = time.perf_counter()
    checkpoint = resolve(settings.source, trust_remote_code=settings.trust_remote_code)
    source = checkpoint.load_tokenizer()
    target = open_tokenizer(settings.tokenizer, trust_remote_code=settings.trust_remote_code)
    size = padded_size(target, settings.pad_to_multiple_of)
    room = check_memory(checkpoint, size)
    model = checkpoint.load_model(dtype="auto", as_stored=True)
    found = vocabulary_tensors(model)
    rows = as_rows(found.rows)
    head = as_rows(found.head) if found.head is not None else None
    context, data = _context(settings, checkpoint, source, target, rows, head, size, aux)
    lent, files = inputs_of(settings.method()[1])
    mix = row_mix(settings, context)
    reference = context.vocab.source_used
    labels = np.zeros(size, dtype=np.int8)
    labels[: len(context.vocab.target)] = [token.starts_word for token in context.vocab.target]
    measured: dict[str, Any] = {}

    def fill(matrix: np.ndarray, which: Which) -> np.ndarray:
        stream = np.random.default_rng([settings.seed, 1 if which == "input" else 2])
        matched = labels if settings.norm_match else None
        filled = mix.apply(matrix, rng=stream, reference=reference, norm_match=matched, which=which)
        measured[f"{which}_rows"] = mix.report(matrix, filled)
        return filled

    del found, rows, head
    context.head_rows, context.rows = None, context.rows[:0]
    pad = model.config.pad_token_id
    replace_vocabulary(model, fill, lambda bias: mix.apply_bias(bias, reference=reference))
    translate_ids(model, source, target)
    move_padding(model)
    check_opening(model.config, target, settings.tokenizer)
    shift_positions(model, pad, own_pad(target), settings.tokenizer)
    measured |= describe(context.vocab)
    measured["seconds"] = round(time.perf_counter() - started, 3)
    lineage = Lineage.of(
        "transplant",
        settings,
        parents=[checkpoint, *lent],
        data={"tokenizer": tokenizer_digest(target), **data, **files},
        seeds={"rows": settings.seed},
        measured=measured,
    )
    return save_checkpoint(out, model, target, lineage=lineage, replace=replace, verify=room)


def row_mix(settings: TransplantSettings, context: RowContext) -> RowMix:
    """Call the initialiser, then copy what is to be copied: overlap (if wanted), special tokens, padding."""
    entry, options = settings.method()
    mix: RowMix = entry.target(context, options)
    if mix.weights.shape != context.shape:
        raise UserError(
            f"the initialiser {entry.name!r} returned a mix of shape {mix.weights.shape}, not {context.shape}"
        )
    if context.copy_overlap:
        mix = mix.with_copies(context.vocab.matched)
    mix = mix.with_mean(context.vocab.unmatched_special)
    return mix.with_copies(context.vocab.roles).check()


def copies_overlap(settings: TransplantSettings) -> bool:
    """Whether overlapping rows are copied: as set, else as the method's source does."""
    if settings.copy_overlap is not None:
        return settings.copy_overlap
    return "all-rows" not in settings.method()[0].tags


def _context(
    settings: TransplantSettings,
    checkpoint: Checkpoint,
    source: PreTrainedTokenizerFast,
    target: PreTrainedTokenizerFast,
    rows: np.ndarray,
    head: np.ndarray | None,
    size: int,
    aux: dict[Any, Any] | None,
) -> tuple[RowContext, dict[str, str]]:
    """What the initialiser gets, and the fingerprints of the data in it."""
    from warmstart.corpus import open_corpus, open_pairs

    if len(source) > rows.shape[0]:
        raise UserError(
            f"the source tokenizer has {len(source):,} ids and the model only {rows.shape[0]:,} rows",
            where=settings.source,
        )
    data: dict[str, str] = {}
    corpora: dict[str, Any] = {"corpus": None, "source_corpus": None}
    pairs: dict[str, Any] = {"dictionary": None, "parallel": None}
    for name in corpora:
        if (given := getattr(settings, name)) is not None:
            corpora[name] = open_corpus(given)
            label = corpora[name].name
            data[f"{name} {label}" if label in data else label] = corpora[name].fingerprint
    for name in pairs:
        if (given := getattr(settings, name)) is not None:
            opened = open_pairs(given)
            pairs[name] = list(opened)
            label = Path(given).name if Path(given).exists() else given
            data[f"{name} {label}" if label in data else label] = opened.fingerprint
    vocab = VocabMap.build(
        source, target, source_size=rows.shape[0], target_size=size, fuzzy=settings.fuzzy_overlap
    )
    context = RowContext(
        vocab=vocab,
        source_tokenizer=source,
        target_tokenizer=target,
        rows=rows,
        head_rows=head,
        **corpora,
        **pairs,
        rng=np.random.default_rng([settings.seed, 0]),
        seed=settings.seed,
        config=checkpoint.config,
        copy_overlap=copies_overlap(settings),
        aux={} if aux is None else aux,
    )
    return context, data


def own_pad(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The padding id, unless another special token only stands in for it."""
    index = tokenizer.pad_token_id
    others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    return None if index is None or index in others else int(index)


def padded_size(tokenizer: PreTrainedTokenizerFast, multiple: int) -> int:
    """Rows that a tokenizer needs: its largest id plus one, rounded up."""
    count = max(tokenizer.get_vocab().values()) + 1
    return -(-count // multiple) * multiple


def check_memory(checkpoint: Checkpoint, size: int) -> bool:
    """Refuse a target that does not fit; returns whether there is room to open the result as a check."""
    import psutil

    tensors = checkpoint.tensors.values()
    stored = sum(header.end - header.begin for header in tensors)
    matrices = [h for h in tensors if len(h.shape) == 2 and h.shape[0] == checkpoint.rows]
    width = sum(h.shape[1] for h in matrices)
    item = max(((h.end - h.begin) // max(1, h.numel) for h in matrices), default=4)
    # half-precision rows are widened for the sums: one source and one target matrix at a time
    working = 4 * (size + (checkpoint.rows or 0)) * max((h.shape[1] for h in matrices), default=0)
    needed = stored + size * width * item + (working if item < 4 else 0)
    available = int(psutil.virtual_memory().available)
    if needed > available:
        raise UserError(
            f"the transplant needs about {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are free",
            where=checkpoint.name,
            fix="close other programs, choose a smaller vocabulary, or use a larger machine",
        )
    return 3 * needed < available


def describe(vocab: VocabMap) -> dict[str, Any]:
    """How many target tokens are copied, special, new, and cut into how many pieces."""
    counts = [len(vocab.pieces_all()[index]) for index in vocab.new]
    return {
        "source_tokens": len(vocab.source),
        "target_tokens": len(vocab.target),
        "overlap": len(vocab.overlap),
        "fuzzy_overlap": len(vocab.fuzzy),
        "special_by_role": len(vocab.roles),
        "new": len(vocab.new),
        "new_without_pieces": counts.count(0),
        "pieces_per_new_token": round(float(np.mean(counts)), 3) if counts else None,
    }


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """Fingerprint of a tokenizer: hash of its tokenizer.json."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:32]
