"""Where a repeated span of blocks begins."""

from __future__ import annotations

import numpy as np
import pytest
from anatomy_models import build, float64_throughout
from shrink_models import calibration_of, named

from warmstart.anatomy import anatomy_of_model
from warmstart.foundation.errors import UserError
from warmstart.recipes.operations.grow import GrowStep
from warmstart.shape.calibration import given
from warmstart.shape.depth.span import SpanSettings, span
from warmstart.shape.grow import GrowSettings, grow
from warmstart.shape.similarity import block_similarity


def origins(old: int, new: int, start: str | int | None, **extra: object) -> list[int]:
    layers = span(SpanSettings.parse({"start": start}), old, new, **extra)
    return [layers.origin(i) for i in range(new)]


def test_yi_9b() -> None:
    """Sixteen of 32 blocks with the highest cosines, 12 to 27, once more behind themselves."""
    cosines = np.where((np.arange(32) >= 12) & (np.arange(32) < 28), 0.99, 0.9)
    found = origins(32, 48, "most-similar", similarity=cosines)
    assert found == [*range(28), *range(12, 32)]


@pytest.mark.parametrize(("start", "best"), [("most-similar", max), ("least-similar", min)])
def test_the_span_with_the_best_mean_is_taken(start: str, best: object) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        old = int(rng.integers(1, 12))
        count = int(rng.integers(1, old + 1))
        cosines = rng.normal(size=old)
        means = [float(np.mean(cosines[i : i + count])) for i in range(old - count + 1)]
        wanted = means.index(best(means))  # type: ignore[operator]
        assert origins(old, old + count, start, similarity=cosines) == [
            *range(wanted + count),
            *range(wanted, old),
        ]


def test_other_starts() -> None:
    assert origins(6, 9, None) == origins(6, 9, "middle") == origins(6, 9, 1) == [0, 1, 2, 3, 1, 2, 3, 4, 5]
    drawn = [origins(6, 9, "random", rng=np.random.default_rng(seed)) for seed in range(40)]
    assert {tuple(order) for order in drawn} == {tuple(origins(6, 9, start)) for start in range(4)}
    for start in (-1, 4):
        with pytest.raises(UserError, match="are not all there"):
            origins(6, 9, start)
    with pytest.raises(UserError, match="start"):
        SpanSettings.parse({"start": "best"})


@pytest.mark.parametrize("variant", ["llama", "t5"])
def test_blocks_are_compared_on_the_text(variant: str) -> None:
    model = build(variant)
    anatomy = anatomy_of_model(model)
    calibration = calibration_of(model)
    to = {key: size + 1 for key, size in named(anatomy, {"layers": max(anatomy.layers.values())}).items()}
    with float64_throughout(model):
        cosines = block_similarity(calibration)
        for start, choose in (("most-similar", np.argmax), ("least-similar", np.argmin)):
            settings = GrowSettings.parse({"to": to, "depth": {"name": "span", "start": start}})
            layers = grow(anatomy, settings, calibrate=given(calibration)).layers
            assert layers
            for stack, order in layers.items():
                repeated = int(choose(cosines[stack]))
                found = [order.origin(i) for i in range(len(order))]
                assert found == [*range(repeated + 1), *range(repeated, anatomy.layers[stack])]


def test_a_random_start_follows_the_seed() -> None:
    model = build("llama")
    anatomy = anatomy_of_model(model)
    count = anatomy.layers["decoder"]

    def start(seed: int) -> list[int]:
        settings = {"to": {"num_hidden_layers": count + 1}, "depth": {"name": "span", "start": "random"}}
        order = grow(anatomy, GrowSettings.parse({**settings, "seed": seed})).layers["decoder"]
        return [order.origin(i) for i in range(count + 1)]

    assert start(3) == start(3)
    assert len({tuple(start(seed)) for seed in range(20)}) == count


def test_text_is_needed_only_to_compare() -> None:
    anatomy = anatomy_of_model(build("llama"))
    to = {"num_hidden_layers": anatomy.layers["decoder"] + 1}
    grow(anatomy, GrowSettings.parse({"to": to, "depth": "span"}))
    asked = GrowSettings.parse({"to": to, "depth": {"name": "span", "start": "most-similar"}})
    with pytest.raises(UserError, match=r"the depth 'span' needs text.*in grow.*add corpus"):
        grow(anatomy, asked)


def test_settings_of_reading_leave_older_steps_as_they_were() -> None:
    reading = {"corpus", "calibration_tokens", "block_size", "per_device_calibration_batch_size", "bf16"}
    assert GrowStep.added_later().keys() == reading
