"""Codes of a speech codec as tokens: losses that hold them to their sound and make the model plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.kmeans import kmeans, nearest_centre
from warmstart.foundation.settings import Settings
from warmstart.objectives._base import objectives
from warmstart.objectives.causal import Causal
from warmstart.objectives.multi_token import after_next, copied_head

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


class SpeechCodesSettings(Settings):
    """Options of training on speech codes; 0 switches a part off."""

    features: str | None = None
    """Vectors of codes by the strings of their tokens (.npz with `words` and `vectors`), such as the mean
    self-supervised feature of all frames that have the code. It says which tokens are codes; without it there
    is neither an alignment nor a coarse loss."""
    classes: int = Field(default=64, ge=2)
    """Coarse classes of `features`, by k-means; as many as there are codes where those are fewer."""
    alignment_weight: float = Field(default=0.05, ge=0)
    """Weight of the distance between input rows of codes and features of their sound (0.01–0.1)."""
    coarse_weight: float = Field(default=0.1, ge=0)
    """Weight of the loss of the next code's coarse class."""
    next_code_weight: float = Field(default=0.1, ge=0)
    """Weight of the loss of the code after the next one."""
    thinning_prob: float = Field(default=0.1, ge=0, le=0.9)
    """Share of the codes that are left out; the others keep their places in time."""
    erasure_prob: float = Field(default=0.1, ge=0, lt=1)
    """Expected share of the tokens in erased spans (spans may overlap): a mark stands for their codes, which
    are not predicted."""
    erasure_length: float = Field(default=5.0, ge=1)
    """Mean length of an erased span, tokens."""


@objectives.register(
    "speech-codes",
    settings=SpeechCodesSettings,
    title="Optimizing Speech Language Models for Acoustic Consistency",
    arxiv="2509.26276",
    tags=("causal", "random"),
)
class SpeechCodes(Causal):
    """Next-token prediction of speech codes with alignment, coarse and next-code losses, on thinned text.

        L = L_next + w_a mean(1 - cos(W e_c, f_c)) + w_c L_coarse + w_n L_after

    e_c is the input row of code c, f_c the mean self-supervised feature of the frames with that code, W a
    linear map that learns; L_coarse predicts the class (a k-means cluster of the f_c) of the next code by a
    linear head, L_after the token after the next one by a copy of the language-model head. W and both heads
    learn beside the model and are dropped on save. Thinning leaves codes out and keeps `position_ids`;
    erasure hides spans. Text between the codes is neither thinned nor erased.

    The paper describes these parts and gives neither formulas nor weights that we could see; this is a
    reading of its description. "After the next" counts the codes that were kept.

    Args:
        settings: Options of the objective.
        tokenizer: Of the model; its mask token, else its unknown token, marks erased codes.
        codes: Ids of the codes, (K,); by default those that `settings.features` names, or without it all ids
            that are not special.
        features: f, (K, F), instead of `settings.features`; without either there is no alignment loss.
        classes: Class of each code, (K,), instead of clusters of `settings.features`; without either there is
            no coarse loss.
        erased: Id that marks erased codes.

    Raises:
        UserError: A file of features that cannot be read or names what is no token; tables of another length
            than the codes; codes or classes out of range.
    """

    settings: SpeechCodesSettings
    parts = ("codes", "features", "classes", "erased")

    def __init__(
        self,
        settings: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        codes: Iterable[int] | None = None,
        features: np.ndarray | None = None,
        classes: np.ndarray | None = None,
        erased: int | None = None,
    ) -> None:
        super().__init__(settings, tokenizer)
        self._given, self._erased = None if codes is None else list(codes), erased
        if settings.features is not None and codes is features is classes is None:
            self._given, features = read_features(settings.features, tokenizer)
            classes = coarse_classes(features, settings.classes)
        self.features = None if features is None else np.asarray(features, dtype=np.float32)
        self.classes = None if classes is None else np.asarray(classes, dtype=np.int64)
        for name, table in (("features", self.features), ("classes", self.classes)):
            if table is not None and len(table) != len(self.codes):
                raise UserError(f"{name} has {len(table)} rows for {len(self.codes)} codes")
        for name, table, most in (("code", self.codes, len(tokenizer)), ("class", self.classes, None)):
            wrong = [] if table is None else [i for i in table if i < 0 or (most is not None and i >= most)]
            if wrong:
                size = f", the tokenizer has {most:,} tokens" if most is not None else ""
                raise UserError(f"there is no {name} {wrong[0]}{size}", where="speech-codes")
        total = hashlib.sha256(repr(erased).encode())
        for table in (self.codes, self.features, self.classes):
            total.update(b"none" if table is None else table.tobytes())
        self.fingerprint = total.hexdigest()[:16]

    @property
    def codes(self) -> np.ndarray:
        """Ids of the codes, (K,)."""
        if self._given is not None:
            return np.asarray(self._given, dtype=np.int64)
        return np.setdiff1d(np.arange(len(self.tokenizer)), self.tokenizer.all_special_ids)

    @property
    def mark(self) -> int:
        """Id that stands for erased codes."""
        choices = [self._erased, *(getattr(self.tokenizer, f"{r}_token_id", None) for r in ("mask", "unk"))]
        found = next((index for index in choices if index is not None), None)
        if found is None:
            raise UserError("the tokenizer has no mask token to erase codes with", fix="set erasure_prob: 0")
        return int(found)

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """`input_ids`, `labels` and, where thinned, `position_ids` and `attention_mask`, (B, at most L)."""
        import torch

        ids = blocks.astype(np.int64)
        code = np.isin(ids, self.codes)
        erased = self._spans(ids.shape, rng) & code
        inputs = np.where(erased, self.mark, ids) if erased.any() else ids
        labels = np.where(erased | (ids < 0), -100, ids)
        found = {"input_ids": np.maximum(inputs, 0), "labels": labels}
        if self.settings.thinning_prob:
            dropped = code & (rng.random(ids.shape) < self.settings.thinning_prob)
            dropped[:, 0] = False
            order = np.argsort(dropped, axis=1, kind="stable")
            kept = np.take_along_axis(~dropped, order, axis=1)
            width = int(kept.sum(1).max())
            found = {k: np.take_along_axis(v, order, axis=1) for k, v in found.items()}
            found = {
                "input_ids": np.where(kept, found["input_ids"], 0),
                "labels": np.where(kept, found["labels"], -100),
                "position_ids": np.where(kept, order, 0),
                # without a mask transformers takes a gap between positions for the border of two texts
                "attention_mask": kept.astype(np.int64),
            }
            found = {k: np.ascontiguousarray(v[:, :width]) for k, v in found.items()}
        return {name: torch.from_numpy(value) for name, value in found.items()}

    def _spans(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Places in random spans, (B, L) bool."""
        rows, length = shape
        mean = self.settings.erasure_length
        wanted = self.settings.erasure_prob * length / mean
        most = int(np.ceil(wanted))
        if not most:
            return np.zeros(shape, dtype=bool)
        used = rng.random((rows, most)) < wanted / most
        starts = rng.integers(0, length, (rows, most))
        ends = starts + used * rng.geometric(1 / mean, (rows, most))
        place = np.arange(length)[:, None]
        inside = (place >= starts[:, None]) & (place < ends[:, None])
        return np.asarray(inside.any(2))

    def companions(self, model: nn.Module) -> nn.Module | None:
        """Heads and map of the parts that are on, None without any."""
        import torch

        from warmstart.evaluation.head import unwrap

        rows = unwrap(model).get_input_embeddings().weight
        options: dict[str, Any] = {"device": rows.device, "dtype": rows.dtype}
        made: dict[str, nn.Module] = {}
        if self.settings.next_code_weight:
            made["after"] = copied_head(model)
        if self.settings.coarse_weight and self.classes is not None:
            made["coarse"] = torch.nn.Linear(rows.shape[1], int(self.classes.max()) + 1, **options)
        if self.settings.alignment_weight and self.features is not None:
            made["alignment"] = torch.nn.Linear(rows.shape[1], self.features.shape[1], bias=False, **options)
        return torch.nn.ModuleDict(made) if made else None

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Summed next-token loss plus N times the weighted means of the other parts, and N."""
        if companions is None:
            return super().loss(model, batch)
        from warmstart.objectives._hidden import hidden_states, next_token_nll, plain_head

        parts: Any = companions
        inputs = {name: value for name, value in batch.items() if name not in ("labels", "input_ids")}
        head = plain_head(model, batch["input_ids"])
        (hidden,) = hidden_states(model, batch["input_ids"], dropout=True, **inputs)
        labels = batch["labels"]
        total, number = next_token_nll(head, hidden, self.targets(labels))
        extra = total.new_zeros(())
        if "after" in parts:
            later, count = next_token_nll(head, hidden, after_next(labels), parts["after"])
            extra = extra + self.settings.next_code_weight * later / max(count, 1)
        if "coarse" in parts:
            extra = extra + self.settings.coarse_weight * self._coarse(parts["coarse"], hidden, labels)
        if "alignment" in parts:
            extra = extra + self.settings.alignment_weight * self._aligned(model, parts["alignment"], labels)
        return total + number * extra, total.new_tensor(float(number))

    def _numbers(self, labels: Tensor) -> Tensor:
        """Which code each label is, from 0; -100 for what is none."""
        import torch

        size = max(int(self.codes.max()) + 1, len(self.tokenizer)) + 1
        table = np.full(size, -100, dtype=np.int64)
        table[self.codes] = np.arange(len(self.codes))
        known = torch.from_numpy(table).to(labels.device)
        return known[torch.where((labels < 0) | (labels >= size), size - 1, labels)]

    def _coarse(self, head: Any, hidden: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of the class of the next code."""
        import torch
        from torch.nn import functional as F

        assert self.classes is not None
        number = self._numbers(self.targets(labels))
        place = (number >= 0).nonzero(as_tuple=True)
        goal = torch.from_numpy(self.classes).to(labels.device)[number[place]]
        logits = head(hidden[place])
        return F.cross_entropy(logits, goal, reduction="sum") / max(len(goal), 1)

    def _aligned(self, model: nn.Module, layer: Any, labels: Tensor) -> Tensor:
        """Mean of `1 - cos(W e_c, f_c)` over the codes of the batch that are predicted."""
        import torch
        from torch.nn import functional as F

        from warmstart.evaluation.head import unwrap

        assert self.features is not None
        number = self._numbers(labels)
        place = number >= 0
        rows = F.embedding(labels[place], unwrap(model).get_input_embeddings().weight)
        goal = torch.from_numpy(self.features).to(rows)[number[place]]
        distance = 1 - F.cosine_similarity(layer(rows), goal.to(rows), dim=-1)
        return distance.sum() / max(len(distance), 1)


def read_features(path: str | Path, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], np.ndarray]:
    """Ids (K,) and vectors (K, F) of the codes that a file names, by id.

    Raises:
        UserError: No such file or one of another form, vectors that are not finite, names that are no tokens.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError("there is no such file of features", where=path, fix="check the path")
    form = "save them with np.savez(path, words=np.array(names), vectors=vectors)"
    try:
        with np.load(path, allow_pickle=False) as file:
            names, vectors = [str(word) for word in file["words"]], np.asarray(file["vectors"], np.float32)
    except (ValueError, OSError, EOFError, KeyError, TypeError, AttributeError):
        raise UserError("this is no .npz with words and vectors", where=path, fix=form) from None
    if vectors.ndim != 2 or len(vectors) != len(names) or not vectors.size:
        raise UserError(f"{len(names)} words, but vectors of shape {vectors.shape}", where=path, fix=form)
    if not np.isfinite(vectors).all():
        wrong = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise UserError(f"the feature of {names[wrong]!r} is not finite", where=path)
    known = tokenizer.get_vocab()
    for name in names:
        if name not in known:
            raise UserError(
                f"{name!r} has a feature and is no token",
                where=path,
                fix="add the codes to the tokenizer first, under the same names",
            )
    if len(set(names)) != len(names):
        raise UserError("a code has two features", where=path, fix="keep one vector per code")
    ids = np.array([known[name] for name in names])
    order = np.argsort(ids)
    return ids[order].tolist(), vectors[order]


def coarse_classes(features: np.ndarray, count: int) -> np.ndarray:
    """k-means cluster of each feature, (K,); each feature its own where there are no more of them."""
    different, label = np.unique(features, axis=0, return_inverse=True)
    if len(different) <= count:
        return np.asarray(label.reshape(-1), dtype=np.int64)
    return nearest_centre(features, kmeans(features, count))[0]
