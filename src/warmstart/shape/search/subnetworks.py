"""The sub-networks of one model: each made when it is asked for, measured, and forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.anatomy import AxisGroup
from warmstart.foundation.errors import UserError
from warmstart.shape.calibration import Calibration, given
from warmstart.shape.importance import ImportanceContext, Scores, importances
from warmstart.shape.rescale import cut_model
from warmstart.shape.reshape import Reshape
from warmstart.shape.search.evaluations import Evaluation
from warmstart.shape.search.judges import Judge
from warmstart.shape.search.settings import SearchSettings
from warmstart.shape.search.space import Choices, Sizes, Space
from warmstart.shape.shrink import ShrinkSettings, shrink
from warmstart.shape.similarity import block_similarity
from warmstart.shape.stored import Stored, write_reshaped

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class KnownScores:
    """Importance and similarity, each measured when it is first asked for and then remembered.

    All groups of one letter are scored together, with a generator of their own: what is remembered does not
    depend on which sub-network asked.

    Attributes:
        stored: The model's files.
        calibration: The model and its text.
        importance: Which way to score.
        seed: Of what is drawn for it.
    """

    stored: Stored
    calibration: Calibration
    importance: str | dict[str, Any]
    seed: int
    seconds: float = 0.0
    _known: dict[str, Scores] = field(default_factory=dict)

    @cached_property
    def similarity(self) -> Mapping[str, np.ndarray]:
        """As [`block_similarity`][warmstart.shape.similarity.block_similarity]."""
        return block_similarity(self.calibration)

    def scores(self, groups: tuple[AxisGroup, ...]) -> Scores:
        """Importance of the entries of these groups."""
        found: Scores = {}
        for group in groups:
            letter = group.name.partition("@")[0]
            if letter not in self._known:
                self._known[letter] = self._scored(letter)
            found[group.name] = self._known[letter][group.name]
        return found

    def _scored(self, letter: str) -> Scores:
        started = time.perf_counter()
        way, own = importances.choose(self.importance, where="importance")
        anatomy = self.stored.anatomy
        groups = tuple(g for name, g in anatomy.groups.items() if name.partition("@")[0] == letter)
        rng = np.random.default_rng([self.seed, *letter.encode()])
        names = self.stored.names.keys()
        context = ImportanceContext(
            anatomy, groups, self.stored.read, names, given(self.calibration, where="search"), rng
        )
        found = way.target(own, context)
        self.seconds += time.perf_counter() - started
        return found


class Networks:
    """The sub-networks of a model: which there are, how good each is, and one as a checkpoint.

    Args:
        stored: The model's files.
        calibration: The model and the text by which its parts are judged.
        settings: Which sub-networks, and how they are made.
        judge: What makes one better than another.
    """

    space: Choices
    known: KnownScores

    def __init__(
        self,
        stored: Stored,
        calibration: Calibration,
        settings: SearchSettings,
        judge: Judge,
    ) -> None:
        if stored.anatomy.table.two_layouts:
            raise UserError(
                f"a {stored.anatomy.model_type} is held otherwise than it is stored, and cannot be searched",
                fix="cut it with `warmstart shrink`",
            )
        self.stored, self.calibration, self.settings, self.judge = stored, calibration, settings, judge

    @property
    def whole(self) -> int:
        """Parameters that the source stores."""
        return sum(self.stored.anatomy.tensors[name].size for name in self.stored.names)

    def reading(self, sizes: Sizes) -> AbstractContextManager[PreTrainedModel]:
        """Inside the block there is a model that computes the sub-network."""
        raise NotImplementedError

    def export(self, sizes: Sizes, out: Path, *, settings: Any, measured: Mapping[str, Any]) -> None:
        """Write a sub-network as a checkpoint.

        Args:
            sizes: Which one.
            out: Folder to create; one that is there is replaced.
            settings: Of the step, for the lineage.
            measured: Further numbers for the lineage.
        """
        raise NotImplementedError

    def measure(self, sizes: Sizes, texts: Sequence[str] | None = None) -> Evaluation:
        """Loss of a sub-network on held-out texts, with what it cost to know it.

        Args:
            sizes: Which one.
            texts: Other texts than those of the search.
        """
        started = time.perf_counter()
        with self.reading(sizes) as model:
            loss, tokens = self.judge(model, texts)
        return Evaluation(
            sizes=self.space.named(sizes),
            parameters=self.space.parameters(sizes) or 0,
            loss=loss,
            tokens=tokens,
            seconds=round(time.perf_counter() - started, 4),
        )


class SubNetworks(Networks):
    """Sub-networks that are cut out of the model, each when it is asked for.

    The model is in memory once, for its scores; the weights of a sub-network are sliced from the mapped files
    and thrown away after it was measured.
    """

    space: Space

    def __init__(
        self, stored: Stored, calibration: Calibration, settings: SearchSettings, judge: Judge
    ) -> None:
        super().__init__(stored, calibration, settings, judge)
        self.space = Space(stored.anatomy, settings.space, fixed=settings.to, names=stored.names.keys())
        self.known = KnownScores(stored, calibration, settings.importance, settings.seed)

    def surgery(self, sizes: Sizes) -> Reshape:
        """The surgery that makes a sub-network; nothing changes where it is the whole model."""
        anatomy = self.stored.anatomy
        if self.space.is_source(sizes):
            return Reshape(old=anatomy, new=anatomy)
        plain = {name: getattr(self.settings, name) for name in ShrinkSettings.model_fields}
        return shrink(
            anatomy,
            ShrinkSettings.model_validate(plain | {"to": self.space.named(sizes)}),
            read=self.stored.read,
            names=self.stored.names.keys(),
            calibrate=given(self.calibration, where="search"),
            judge=self.known,
        )

    @contextmanager
    def reading(self, sizes: Sizes) -> Iterator[PreTrainedModel]:
        """The sub-network in memory."""
        if self.space.is_source(sizes):
            yield self.calibration.model
        else:
            yield cut_model(
                self.surgery(sizes), self.calibration.model, self.stored.read, self.stored.names.keys()
            )

    def export(self, sizes: Sizes, out: Path, *, settings: Any, measured: Mapping[str, Any]) -> None:
        """Write a sub-network as `shrink` would."""
        write_reshaped(
            self.stored,
            self.surgery(sizes),
            out,
            operation="search",
            settings=settings,
            data=self.calibration.data,
            measured=measured,
        )
