"""Spaces hold what the family can have, and count what a checkpoint of it stores."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from anatomy_models import build
from search_models import searched, space_of
from shape_files import stored, tensors
from shrink_models import named

from warmstart.anatomy import Anatomy, anatomy_of_model
from warmstart.checkpoint import resolve
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.shape.search.bins import Bin, bins_of, linear_bins
from warmstart.shape.search.space import Range, Space
from warmstart.shape.stored import Stored
from warmstart.shape.target import target_anatomy

SMALLER = {
    "llama": {"hidden_size": [16, 32], "intermediate_size": [20], "num_hidden_layers": [1, 2]},
    "gpt2": {"n_embd": [16], "n_layer": [1, 2]},
    "gpt_neox": {"intermediate_size": [20, 40], "num_attention_heads": [2, 4]},
    "bert": {"intermediate_size": [20], "num_hidden_layers": [1]},
    "t5": {"d_model": [16], "num_layers": [1], "d_ff": [20]},
}


@pytest.mark.parametrize("family", SMALLER)
def test_parameters_are_those_of_the_checkpoint(family: str, tmp_path: Path) -> None:
    source = stored(tmp_path / "source", family)
    held = Stored(resolve(source))
    space = Space(held.anatomy, SMALLER[family], names=held.names.keys())
    possible = [
        sizes for sizes in space if space.parameters(sizes) is not None and not space.is_source(sizes)
    ]
    assert possible
    for sizes in possible[:2]:
        settings = {"source": str(source), "to": space.named(sizes), "importance": "first"}
        made = Runner(tmp_path / "cache").step("shrink", settings)
        assert space.parameters(sizes) == sum(t.numel() for t in tensors(made).values())
    assert space.parameters(space.full) in (None, sum(t.numel() for t in tensors(source).values()))


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "gpt_neox", "bert", "gpt2-inner-untied", "t5"])
def test_what_the_family_cannot_have_is_left_out(variant: str) -> None:
    """Against the surgery itself, which refuses a target or does not."""
    old = anatomy_of_model(build(variant))
    space = Space(old, {_key(old, "hidden"): [9, 12, 18, 24], _key(old, "heads"): [1, 2, 3, 4]})
    verdicts = set()
    for sizes in space:
        try:
            target_anatomy(old, space.named(sizes))
        except UserError:
            assert space.parameters(sizes) is None
            verdicts.add(False)
        else:
            verdicts.add(True)
    assert True in verdicts and (False in verdicts or variant == "t5")


def _key(old: Anatomy, role: str) -> str:
    return next(iter(named(old, {role: 1})))


def test_ranges_end_with_the_models_own_size() -> None:
    choices = {"intermediate_size": Range(min=6, step=6), "num_hidden_layers": Range(min=1)}
    space = space_of("gpt_neox", choices)
    assert space.values == ((6, 12, 18, 20), (1, 2)) and space.full == (20, 2) and space.count == 8
    assert list(space) == list(itertools.product((6, 12, 18, 20), (1, 2)))
    assert space.is_source((20, 2)) and not space.is_source((18, 2))
    assert space_of("gpt_neox", {"intermediate_size": Range(min=6, max=16, step=5)}).values == ((6, 11, 16),)


def test_fixed_sizes_hold_everywhere() -> None:
    old = anatomy_of_model(build("llama"))
    space = Space(old, {"intermediate_size": [10, 20]}, fixed={"num_hidden_layers": 1})
    assert space.named((20,)) == {"num_hidden_layers": 1, "intermediate_size": 20}
    assert not space.is_source((20,))
    assert space.parameters((20,)) == Space(old, {"num_hidden_layers": [1]}).parameters((1,))


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"hidden_sise": [8]}, "hidden_size"),
        ({"vocab_size": [8]}, "belongs to the tokenizer"),
        ({"intermediate_size": [8, 40]}, "intermediate_size is 20 in the model, and the space has 40"),
        ({"intermediate_size": []}, "the space has nothing"),
    ],
)
def test_spaces_that_are_none_are_refused(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        space_of("gpt_neox", choices)


def test_bins() -> None:
    assert bins_of([(0.25, 0.5), (100, 200)], 1000) == (Bin(250, 500), Bin(100, 200))
    assert 250 in Bin(250, 500) and 500 in Bin(250, 500) and 501 not in Bin(250, 500)
    assert None not in Bin(0, 10), "sizes that the family cannot have are in no bin"
    parts = linear_bins(10, 20, 4)
    assert parts[0].low == 10 and parts[-1].high == 20
    assert all(a.high == b.low for a, b in itertools.pairwise(parts))
    with pytest.raises(UserError, match=r"from 0\.5 to 0\.5 holds nothing"):
        bins_of([(0.5, 0.5)], 10)


def test_an_empty_bin_is_said_with_what_there_is() -> None:
    space = space_of()
    found = [space.parameters(sizes) for sizes in space]
    smallest, largest = min(n for n in found if n), max(n for n in found if n)
    with pytest.raises(UserError, match=f"no sub-network.*the space has {smallest:,} to {largest:,}"):
        searched("random", space, within=Bin(1, 2))
