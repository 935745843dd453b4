"""Sub-networks behind masks: measured in the whole model, and written as smaller ones or with zeros."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.anatomy import Anatomy, AxisGroup
from warmstart.foundation.errors import UserError
from warmstart.shape.calibration import Calibration, given
from warmstart.shape.importance import Scores, importances
from warmstart.shape.rescale import cut_model
from warmstart.shape.reshape import Read, Reshape
from warmstart.shape.search.judges import Judge
from warmstart.shape.search.masks import Kept, MaskSpace, masked
from warmstart.shape.search.per_layer import cut_layers
from warmstart.shape.search.settings import SearchSettings
from warmstart.shape.search.space import Sizes
from warmstart.shape.search.subnetworks import KnownScores, Networks
from warmstart.shape.shrink import ShrinkSettings, groups_of_one, shrink
from warmstart.shape.stored import Stored, write_reshaped
from warmstart.shape.target import possible_anatomy

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class MaskedNetworks(Networks):
    """Sub-networks that the model computes itself, behind masks; nothing is built for them.

    As a checkpoint one is

    - `uniform`: cut out, by the same choice of layers, heads and units and without any rescaling, so that it
      computes what the mask did. All its layers must be alike, and the family must have it: a BERT or GPT-2
      of fewer heads has larger ones.
    - `per-layer`: cut out likewise, each layer to its own size; it opens with this library.
    - `masked`: of the old sizes, all weights of masked heads and units zero; layers that are left out are
      gone. Its parameters, as the search counts them, are virtual: the file holds the zeros.
    """

    space: MaskSpace

    def __init__(
        self, stored: Stored, calibration: Calibration, settings: SearchSettings, judge: Judge
    ) -> None:
        super().__init__(stored, calibration, settings, judge)
        assert settings.masks is not None
        masks, names = settings.masks, stored.names.keys()
        if settings.export == "uniform" and masks.granularity == "medium":
            raise UserError(
                "layers of a medium space differ, which no configuration says",
                where="search",
                fix="set export: per-layer or masked, or granularity: small",
            )
        self.known = KnownScores(stored, calibration, masks.importance, settings.seed)
        self.space = MaskSpace(stored.anatomy, masks, names=names)
        if masks.importance != "first":
            groups = tuple(stored.anatomy.groups[name] for pair in self.space.groups for name in pair)
            scores, (_, own) = self.known.scores(groups), importances.choose(masks.importance)
            if getattr(own, "reverse", False):
                scores = {name: -score for name, score in scores.items()}
            self.space = MaskSpace(stored.anatomy, masks, names=names, scores=scores)
        if settings.export == "uniform":
            self.space.admits = partial(can_be_cut, self.space)

    @contextmanager
    def reading(self, sizes: Sizes) -> Iterator[PreTrainedModel]:
        """The model itself, behind a mask."""
        with masked(self.calibration.model, self.space, sizes):
            yield self.calibration.model

    def export(self, sizes: Sizes, out: Path, *, settings: Any, measured: Mapping[str, Any]) -> None:
        """Write a sub-network as the settings say.

        Raises:
            UserError: `uniform` is asked for, and the layers differ or the family has no such model.
        """
        kept = self.space.kept(sizes)
        if self.settings.export == "per-layer":
            self._cut(kept, out, settings=settings, measured=measured)
            return
        stored, uniform = self.stored, self.settings.export == "uniform"
        surgery = surgery_of(self.space, kept, read=stored.read, names=stored.names, heads=uniform)
        if not uniform:
            gone = dict(self.space.dropped(kept))
            stored = _Zeroed(stored, gone)
            if gone:
                words = "weights of masked heads and units are zero, so the size is virtual"
                surgery = replace(surgery, inexact=(*surgery.inexact, words))
        write_reshaped(
            stored,
            surgery,
            out,
            operation="search",
            settings=settings,
            data=self.calibration.data,
            measured=measured,
        )

    def _cut(self, kept: Kept, out: Path, *, settings: Any, measured: Mapping[str, Any]) -> None:
        """Write a sub-network whose layers have their own sizes."""
        from warmstart.checkpoint import Lineage, save_checkpoint

        stored, names = self.stored, self.stored.names.keys()
        surgery = surgery_of(self.space, kept, read=stored.read, names=names, heads=False)
        model: Any = cut_model(surgery, self.calibration.model, stored.read, names)
        model = model.base_model if stored.checkpoint.base_only else model
        cut_layers(model, self.space, kept)
        told = {"parameters": sum(p.numel() for p in model.parameters()), "function": "as behind the mask"}
        lineage = Lineage.of(
            "search",
            settings,
            parents=[stored.checkpoint],
            data=self.calibration.data,
            seeds={"seed": settings.seed},
            measured=told | dict(measured),
        )
        tokenizer = stored.checkpoint.load_tokenizer()
        save_checkpoint(out, model.cpu(), tokenizer, lineage=lineage, replace=True, verify=True)


def surgery_of(
    space: MaskSpace, kept: Kept, *, read: Read, names: Collection[str], heads: bool = True
) -> Reshape:
    """The surgery that cuts out what masks leave; exact, as nothing is rescaled.

    Args:
        space: All sub-networks.
        kept: One of them.
        read: Gives stored tensors by canonical name.
        names: Canonical names of what is stored.
        heads: Also cut heads and units, and not only layers.

    Raises:
        UserError: Layers that differ, or sizes that the family cannot have.
    """
    anatomy = space.old
    to, layers = _target(space, kept, heads=heads), len(kept.layers) < space.depth
    if not to:
        return Reshape(old=anatomy, new=anatomy)
    chosen = {"name": "chosen", "layers": list(kept.layers)}
    return shrink(
        anatomy,
        ShrinkSettings(to=to, depth=chosen if layers else "middle", rescale="none"),
        read=read,
        names=names,
        calibrate=given(None, where="search"),
        judge=_Order(space),
    )


def can_be_cut(space: MaskSpace, kept: Kept) -> bool:
    """Whether the family has a model of what a mask leaves."""
    try:
        to = _target(space, kept)
    except UserError:
        return False
    return not to or possible_anatomy(space.old, to, follow=groups_of_one(space.old)) is not None


def _target(space: MaskSpace, kept: Kept, *, heads: bool = True) -> dict[str, int]:
    """The configuration keys that change, with their values."""
    anatomy = space.old
    sizes = _sizes(space, kept) if heads else {}
    layers = {space.stack: len(kept.layers)} if len(kept.layers) < space.depth else {}
    new = anatomy.resized(sizes, layers)
    for letter, size in anatomy.sizes.items():
        if letter not in sizes and new.sizes[letter] != size:
            other = f"{anatomy.table.axes[letter].meaning} {new.sizes[letter]} instead of {size}"
            raise UserError(
                f"a {anatomy.model_type} with fewer heads would have {other}",
                where="search",
                fix="set export: per-layer or masked",
            )
    before = {**anatomy.config, **anatomy.config_updates()}
    return {key: n for key, n in anatomy.config_updates(sizes, layers).items() if n != before.get(key)}


def _sizes(space: MaskSpace, kept: Kept) -> dict[str, int]:
    """Axis letters to the sizes that all kept layers have, where they are not the model's own."""
    found: dict[str, int] = {}
    for place, counts in enumerate((kept.heads, kept.units)):
        several = sorted({counts[layer] for layer in kept.layers})
        if len(several) > 1:
            kind = ("heads", "units")[place]
            raise UserError(
                f"layers have from {several[0]} to {several[-1]} {kind}, which no configuration says",
                where="search",
                fix="set export: per-layer or masked, or granularity: small",
            )
        found[space.groups[0][place].partition("@")[0]] = several[0]
    return {letter: size for letter, size in found.items() if size != space.old.sizes[letter]}


class _Order:
    """The order of heads and units that the masks go by."""

    def __init__(self, space: MaskSpace) -> None:
        self._space = space
        self.similarity: Mapping[str, np.ndarray] = {}

    def scores(self, groups: tuple[AxisGroup, ...]) -> Scores:
        """Minus the place of each entry in the order."""
        return {group.name: -np.argsort(self._space.order[group.name]).astype(float) for group in groups}


def zeroed(anatomy: Anatomy, name: str, tensor: Tensor, gone: Mapping[str, np.ndarray]) -> Tensor:
    """A stored tensor with zeros at entries of axis groups.

    Args:
        anatomy: Of the model.
        name: Canonical name of the tensor.
        tensor: What is stored; itself where nothing of it goes.
        gone: Axis group to its entries that become zero.
    """
    import torch

    spec = anatomy.tensors[name]
    for dim, factor in enumerate(spec.factors):
        if (entries := gone.get(factor.group or "")) is not None:
            view = spec.view(tensor).clone()
            tensor = spec.unview(view.index_fill_(dim, torch.from_numpy(entries), 0)).contiguous()
    return tensor


class _Zeroed(Stored):
    """The same checkpoint, some heads and units of which are zero."""

    def __init__(self, stored: Stored, gone: Mapping[str, np.ndarray]) -> None:
        self.checkpoint, self.anatomy, self.names = stored.checkpoint, stored.anatomy, stored.names
        self._plain, self._gone = stored, gone

    def read(self, name: str) -> Tensor:
        """The tensor of a canonical name, zero at masked entries."""
        return zeroed(self.anatomy, name, self._plain.read(name), self._gone)
