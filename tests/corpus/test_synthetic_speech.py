"""Made-up speech: the truth is what it says, and pairs differ in the speaker alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from warmstart.corpus.synthetic_speech import SpeechWorld, SpeechWorldSettings
from warmstart.foundation.errors import UserError

SMALL: dict[str, Any] = {"train": 150, "held_out": 40, "pairs": 60, "codes": 60, "contents": 10, "frames": 48}


def world(**changes: Any) -> SpeechWorld:
    return SpeechWorld(SpeechWorldSettings.parse({**SMALL, **changes}))


def test_contents_follow_the_graph_and_stay_for_as_long_as_they_may() -> None:
    made = world(branching=2, longest=3)
    found = made.utterances("train")
    assert found.content.shape == found.codes.shape == (150, 48) and found.speaker.shape == (150,)
    followers = {c: set(row) for c, row in enumerate(made.followers.tolist())}
    assert all(len(after) == 2 and c not in after for c, after in followers.items())
    lengths = []
    for row in found.content.tolist():
        starts = [0, *(i for i in range(1, 48) if row[i] != row[i - 1]), 48]
        assert all(row[b] in followers[row[a]] for a, b in pairwise(starts[:-1]))
        lengths += np.diff(starts)[1:-1].tolist()
    assert set(lengths) == {1, 2, 3} and abs(np.mean(lengths) - 2) < 0.1


def test_a_code_is_the_nearest_centre_of_a_frame_of_its_content_and_speaker() -> None:
    """Without noise each content and speaker has one code; that code's frames lie in its cell."""
    made = world(noise=0.0, speaker_weight=1.0, speakers=3, codes=30)
    found = made.utterances("test")
    frames = made.contents[found.content] + made.speakers[found.speaker][:, None]
    gaps = np.square(frames[:, :, None] - made.codebook).sum(3)
    assert np.array_equal(found.codes, gaps.argmin(2))
    assert gaps.min() < 1e-20 and len(np.unique(found.codes)) > 20


def test_pairs_are_equal_until_another_speaker_takes_over() -> None:
    kept, switched = world(speaker_weight=1.0).pairs()
    assert kept.shape == switched.shape == (60, 48)
    assert np.array_equal(kept[:, :24], switched[:, :24])
    assert (kept[:, 24:] != switched[:, 24:]).mean() > 0.3
    one, two = world(speaker_weight=0.0).pairs()
    assert np.array_equal(one, two), "nothing but the speaker differs"


def test_features_are_means_over_the_frames_of_a_code() -> None:
    """Without noise of their own they are the mean of the linear view, computed frame by frame."""
    made = world(noise=0.0, speaker_weight=1.0, feature_speaker_weight=0.5, codes=20)
    found, features = made.utterances("train"), made.features()
    for code in range(20):
        places = np.argwhere(found.codes == code)
        if not len(places):
            assert np.isnan(features[code]).all()
            continue
        views = [
            (made.contents[found.content[n, t]] + 0.5 * made.speakers[found.speaker[n]]) @ made.view
            for n, t in places
        ]
        np.testing.assert_allclose(features[code], np.mean(views, axis=0), atol=1e-9)


def test_worlds_are_the_same_for_a_seed_and_parts_differ() -> None:
    first, second, third = world(), world(), world(seed=1)
    assert np.array_equal(first.utterances("valid").codes, second.utterances("valid").codes)
    assert np.array_equal(first.features(), second.features(), equal_nan=True)
    assert not np.array_equal(first.utterances("valid").codes, first.utterances("test").codes)
    assert not np.array_equal(first.utterances("valid").codes, third.utterances("valid").codes)
    with pytest.raises(UserError, match="`branching` must be below"):
        world(branching=10)
