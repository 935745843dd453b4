"""Sub-networks whose layers have their own sizes: they compute what the mask did, and open again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anatomy_models import build
from shape_files import stored
from tiny_language_models import TEXT

from warmstart.anatomy import anatomy_of_model
from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.checkpoint.forms.per_layer import narrowed
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.shape.search.masks import MaskSettings, MaskSpace, masked
from warmstart.shape.search.per_layer import cut_layers, pad_layers
from warmstart.shape.search.space import Range

FAMILIES = ["llama", "gpt2", "gpt_neox", "bert"]


def outputs(model: Any) -> torch.Tensor:
    ids = torch.arange(16).reshape(2, 8) % model.config.vocab_size
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def space_of(model: Any, seed: int | None = None) -> MaskSpace:
    anatomy = anatomy_of_model(model)
    settings = MaskSettings(granularity="medium", units=Range(min=1))
    plain = MaskSpace(anatomy, settings)
    if seed is None:
        return plain
    rng = np.random.default_rng(seed)
    names = {name for pair in plain.groups for name in pair}
    return MaskSpace(anatomy, settings, scores={n: rng.random(anatomy.groups[n].size) for n in names})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [None, 0])
def test_the_cut_computes_what_the_mask_did(family: str, seed: int | None) -> None:
    torch.manual_seed(0)
    model = build(family).double().eval()
    space = space_of(model, seed)
    (heads, units) = space.full[:2]
    sizes = (1, units - 1, heads, max(1, units // 2), *space.full[4:])
    with masked(model, space, sizes):
        expected = outputs(model)
    assert float((outputs(model) - expected).abs().max()) > 1e-6
    before = {name: tuple(p.shape) for name, p in model.named_parameters()}
    counted = space.parameters(sizes)
    cut_layers(model, space, space.kept(sizes))
    assert float((outputs(model) - expected).abs().max()) < 1e-12
    own = dict(model.named_parameters())
    stored_there = {n for n in own if n in space.old.tensors and space.old.tensors[n].tied_to is None}
    held = [n for n in space.old.language_model if space.old.tensors[n].tied_to is None]
    assert sum(own[n].numel() for n in held if n in stored_there) == counted
    shapes = narrowed(model)
    assert shapes and all(tuple(both["was"]) == before[name] for name, both in shapes.items())
    pad_layers(model)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == before and not narrowed(model)
    assert float((outputs(model) - expected).abs().max()) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_saved_opened_and_learns(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = resolve(stored(tmp_path / "source", family))
    model, tokenizer = source.load_model(), source.load_tokenizer()
    space = space_of(model, 1)
    sizes = (1, 3, *space.full[2:])
    cut_layers(model, space, space.kept(sizes))
    expected = outputs(model)
    made = save_checkpoint(tmp_path / "cut", model, tokenizer, lineage=Lineage.of("test"), verify=True)
    assert made.form is not None and made.form["form"] == "per-layer"
    again = made.load_model()
    torch.testing.assert_close(outputs(again), expected, rtol=0, atol=1e-6)
    assert narrowed(again) == narrowed(model)
    text = (tmp_path / "cut" / "README.md").read_text()
    assert "warmstart export" in text
    (tmp_path / "text.txt").write_text("\n".join(f"{t} {i}" for i, t in enumerate(TEXT * 40)) + "\n")
    given = {"source": str(made.path), "corpus": str(tmp_path / "text.txt"), "max_steps": 2, "block_size": 16}
    runner = Runner(tmp_path / "cache")
    trained = resolve(runner.step("train", given | {"eval_max_bytes": 200, "learning_rate": 1e-2}))
    assert trained.form == made.form
    assert float((outputs(trained.load_model()) - expected).abs().max()) > 1e-4
    plain = resolve(runner.step("export", {"source": str(trained.path)}))
    assert plain.form is None
    torch.testing.assert_close(outputs(plain.load_model()), outputs(trained.load_model()), rtol=0, atol=1e-5)


def test_a_search_leaves_layers_of_their_own_sizes(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "bert")
    (tmp_path / "text.txt").write_text("\n".join(f"{t} {i}" for i, t in enumerate(TEXT * 40)) + "\n")
    given: dict[str, Any] = {
        "source": str(source),
        "corpus": str(tmp_path / "text.txt"),
        "masks": {"granularity": "medium", "units": {"min": 4, "step": 4}, "importance": "magnitude"},
        "bins": [[0.3, 0.95]],
        "search": "random",
        "evaluations": 3,
        "calibration_tokens": 64,
        "block_size": 16,
        "eval_max_bytes": 500,
    }
    runner = Runner(tmp_path / "cache")
    found = runner.step("search", given | {"export": "per-layer"})
    report, made = json.loads((found / "search.json").read_text()), resolve(found)
    assert made.form is not None and made.form["form"] == "per-layer"
    zeros = runner.step("search", given | {"export": "masked"})
    ours, theirs = made.load_model(), resolve(zeros).load_model()
    torch.testing.assert_close(outputs(ours), outputs(theirs), rtol=0, atol=1e-5)
    smaller = sum(p.numel() for p in ours.parameters())
    assert smaller < sum(p.numel() for p in theirs.parameters())
    assert report["chosen"]["parameters"] <= smaller
    with pytest.raises(UserError, match="export: per-layer or masked"):
        runner.step("search", given | {"export": "uniform"})


def test_an_ordinary_model_has_nothing_to_fill_up() -> None:
    with pytest.raises(UserError, match="all layers have the sizes"):
        pad_layers(build("llama"))
