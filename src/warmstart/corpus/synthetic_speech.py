"""Speech without sound: codes of frames in which content and speaker are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import Field, model_validator

from warmstart.foundation.kmeans import kmeans, nearest_centre
from warmstart.foundation.settings import Settings

_FITTED = 20_000
"""Frames from which the codebook is learned."""


class SpeechWorldSettings(Settings):
    """A world of utterances."""

    contents: int = Field(default=24, ge=2)
    """Content symbols, such as phones."""
    speakers: int = Field(default=8, ge=2)
    """Speakers; one keeps speaking throughout an utterance."""
    codes: int = Field(default=256, ge=2)
    """Codes of the codec."""
    frames: int = Field(default=96, ge=4)
    """Frames, and so codes, of an utterance."""
    branching: int = Field(default=4, ge=1)
    """Symbols that may follow a symbol."""
    longest: int = Field(default=3, ge=1)
    """Most frames of a symbol in a row; 1 is the least, all lengths are equally likely."""
    width: int = Field(default=16, ge=1)
    """Numbers of a frame as the codec sees it."""
    feature_width: int = Field(default=32, ge=1)
    """Numbers of a frame's self-supervised feature."""
    speaker_weight: float = Field(default=0.25, ge=0)
    """Size of the speaker against the content in what the codec sees."""
    feature_speaker_weight: float = Field(default=0.1, ge=0)
    """The same in the self-supervised feature, which hears content more than voice."""
    noise: float = Field(default=1.2, ge=0)
    """Standard deviation of the noise in each number of both; content vectors have 1."""
    train: int = Field(default=4000, ge=1)
    """Utterances to train on."""
    held_out: int = Field(default=200, ge=1)
    """Utterances of the valid and of the test part, each."""
    pairs: int = Field(default=400, ge=1)
    """Pairs in whose second text another speaker takes over midway."""
    seed: int = Field(default=0, ge=0)
    """Seed of the world and of its utterances."""

    @model_validator(mode="after")
    def _possible(self) -> SpeechWorldSettings:
        if self.branching >= self.contents:
            raise ValueError("`branching` must be below `contents`: a symbol does not follow itself")
        return self


@dataclass(frozen=True)
class Utterances:
    """Utterances with their truth.

    Attributes:
        codes: `(n, frames)`, from 0.
        content: Content symbol of each frame, `(n, frames)`.
        speaker: `(n,)`.
    """

    codes: np.ndarray
    content: np.ndarray
    speaker: np.ndarray


class SpeechWorld:
    """Content u_c and speaker v_s are Gaussian vectors; a frame is `u_c + w v_s + noise`, a code its nearest
    centre of a k-means codebook, its feature another linear view `Q (u_c + w' v_s) + noise`.

    Contents follow each other along a random graph; the speaker stays. So a code tells both unsurely, the
    content can be told from its neighbours and the speaker from the whole utterance.

    Args:
        settings: Sizes and noise. Equal settings give equal worlds.
    """

    def __init__(self, settings: SpeechWorldSettings) -> None:
        self.settings = settings
        rng = np.random.default_rng([settings.seed, 0])
        self.contents = rng.standard_normal((settings.contents, settings.width))
        self.speakers = rng.standard_normal((settings.speakers, settings.width))
        self.view = rng.standard_normal((settings.width, settings.feature_width)) / np.sqrt(settings.width)
        others = np.array([np.delete(np.arange(settings.contents), c) for c in range(settings.contents)])
        self.followers = np.stack([rng.permutation(row)[: settings.branching] for row in others])

    @cached_property
    def codebook(self) -> np.ndarray:
        """Centre of each code, `(codes, width)`."""
        settings, rng = self.settings, np.random.default_rng([self.settings.seed, 1])
        count = min(settings.train, -(-_FITTED // settings.frames))
        content, speaker = self._latents(count, rng)
        frames = self._frames(content, speaker[:, None], rng).reshape(-1, settings.width)
        return kmeans(frames, settings.codes, seed=settings.seed)

    def utterances(self, split: str) -> Utterances:
        """The utterances of `train`, `valid` or `test`."""
        number = ("train", "valid", "test").index(split)
        count = self.settings.held_out if number else self.settings.train
        rng = np.random.default_rng([self.settings.seed, 2, number])
        content, speaker = self._latents(count, rng)
        return Utterances(self._codes(self._frames(content, speaker[:, None], rng)), content, speaker)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes `(pairs, frames)` of utterances, and the same with another speaker from the middle on.

        Content and noise are equal, so that the speaker is all that differs. Neither speaker is preferred.
        """
        rng = np.random.default_rng([self.settings.seed, 3])
        content, speaker = self._latents(self.settings.pairs, rng)
        other = (speaker + rng.integers(1, self.settings.speakers, len(speaker))) % self.settings.speakers
        late = np.arange(self.settings.frames) >= self.settings.frames // 2
        noise = self.settings.noise * rng.standard_normal((*content.shape, self.settings.width))
        kept = self._clean(content, speaker[:, None]) + noise
        switched = self._clean(content, np.where(late, other[:, None], speaker[:, None])) + noise
        return self._codes(kept), self._codes(switched)

    def features(self) -> np.ndarray:
        """Mean self-supervised feature of the training frames of each code, `(codes, feature_width)`.

        A code without a training frame has NaN.
        """
        settings, found = self.settings, self.utterances("train")
        rng = np.random.default_rng([settings.seed, 4])
        sums = np.zeros((settings.codes, settings.feature_width))
        for codes, content, speaker in zip(found.codes, found.content, found.speaker):
            voice = settings.feature_speaker_weight * self.speakers[speaker]
            noise = settings.noise * rng.standard_normal((len(codes), settings.feature_width))
            np.add.at(sums, codes, (self.contents[content] + voice) @ self.view + noise)
        sizes = np.bincount(found.codes.ravel(), minlength=settings.codes)
        return np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], np.nan)

    def _latents(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Content of each frame `(count, frames)` and speakers `(count,)`."""
        settings = self.settings
        content = np.empty((count, settings.frames), dtype=np.int64)
        symbol = rng.integers(0, settings.contents, count)
        left = rng.integers(1, settings.longest + 1, count)
        for place in range(settings.frames):
            content[:, place] = symbol
            left -= 1
            step = rng.integers(0, settings.branching, count)
            fresh = rng.integers(1, settings.longest + 1, count)
            symbol = np.where(left == 0, self.followers[symbol, step], symbol)
            left = np.where(left == 0, fresh, left)
        return content, rng.integers(0, settings.speakers, count)

    def _clean(self, content: np.ndarray, speaker: np.ndarray) -> np.ndarray:
        return np.asarray(self.contents[content] + self.settings.speaker_weight * self.speakers[speaker])

    def _frames(self, content: np.ndarray, speaker: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        clean = self._clean(content, speaker)
        return clean + self.settings.noise * rng.standard_normal(clean.shape)

    def _codes(self, frames: np.ndarray) -> np.ndarray:
        label, _ = nearest_centre(frames.reshape(-1, frames.shape[-1]), self.codebook)
        return label.reshape(frames.shape[:-1])
