"""The text that a surgery reads, opened when something asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from warmstart.checkpoint import Checkpoint
    from warmstart.corpus import Corpus
    from warmstart.corpus.settings import CorpusSettings
    from warmstart.shape.calibration import Calibration


class Reading(Protocol):
    """Settings of a step that may read text."""

    @property
    def corpus(self) -> CorpusSettings | None: ...

    @property
    def calibration_tokens(self) -> int: ...

    @property
    def block_size(self) -> int: ...

    @property
    def per_device_calibration_batch_size(self) -> int: ...

    @property
    def bf16(self) -> bool: ...

    @property
    def seed(self) -> int: ...


def calibration_of(asked: Reading, source: Checkpoint, corpus: Corpus) -> Calibration:
    """A step's checkpoint, and the blocks that its settings ask for."""
    from warmstart.shape.calibration import calibrate

    return calibrate(
        source,
        corpus,
        tokens=asked.calibration_tokens,
        block_size=asked.block_size,
        batch_size=asked.per_device_calibration_batch_size,
        bf16=asked.bf16,
        seed=asked.seed,
    )


class CalibrationText:
    """The calibration of a step, made when it is first asked for."""

    def __init__(self, settings: Reading, source: Checkpoint, *, where: str = "shrink") -> None:
        self._settings, self._source, self._where = settings, source, where
        self.calibration: Calibration | None = None

    @property
    def data(self) -> dict[str, str]:
        """Name of the corpus to its fingerprint, if it was read."""
        return dict(self.calibration.data) if self.calibration else {}

    def calibrate(self, method: str) -> Calibration:
        """Model and text, for the method of this name."""
        from warmstart.corpus import open_corpus
        from warmstart.shape.calibration import given

        corpus = self._settings.corpus
        if self.calibration is None and corpus is not None:
            self.calibration = calibration_of(self._settings, self._source, open_corpus(corpus))
        return given(self.calibration, where=self._where)(method)
