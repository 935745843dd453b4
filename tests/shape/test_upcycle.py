"""A mixture computes what its dense model did, opens in plain transformers, and copies bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from anatomy_models import VARIANTS, build, float64_throughout, inputs_of, task_class
from safetensors.torch import load_file, save_file

from warmstart.anatomy import anatomy_of
from warmstart.checkpoint.shards import Planned, type_name
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.shape.upcycle import UpcycleSettings, Upcycling, upcycle

DENSE = ["llama", "llama-gqa-tied", "mistral", "qwen2-tied", "qwen3"]


def made(
    model: Any, config: dict[str, Any] | None = None, **settings: Any
) -> tuple[Upcycling, dict[str, torch.Tensor]]:
    state = {
        n: t
        for n, t in model.state_dict().items()
        if n != "lm_head.weight" or not model.config.tie_word_embeddings
    }
    stored = {name: Planned(name, type_name(t.dtype), tuple(t.shape)) for name, t in state.items()}
    config = config or {**model.config.to_dict(), "architectures": [type(model).__name__]}
    found = upcycle(config, stored, UpcycleSettings.parse(settings))
    return found, {planned.name: found.tensor(planned.name, state.__getitem__) for planned in found.tensors}


def opened(folder: Path, found: Upcycling, state: dict[str, torch.Tensor]) -> Any:
    """The mixture as transformers opens it, in float64."""
    folder.mkdir()
    anatomy_of(found.config).match(state)
    apart = {name: tensor.clone() for name, tensor in state.items()}
    save_file(apart, folder / "model.safetensors", {"format": "pt"})
    plain = dict(found.config)
    config = transformers.AutoConfig.for_model(plain.pop("model_type"), **plain)
    config.save_pretrained(folder)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float64,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def difference(dense: Any, mixture: Any) -> float:
    inputs, found = inputs_of(dense), []
    for model in (dense, mixture):
        with torch.no_grad(), float64_throughout(model):
            found.append(model(**inputs).logits)
    return float((found[0] - found[1]).abs().max() / found[0].abs().max())


@pytest.mark.parametrize("variant", DENSE)
@pytest.mark.parametrize(
    "settings",
    [
        {"experts": 4, "experts_per_token": 2},
        {"experts": 3, "experts_per_token": 1},
        {"experts": 4, "granularity": 2, "experts_per_token": 4},
        {"experts": 2, "granularity": 5, "experts_per_token": 5},
    ],
)
def test_weights_that_add_up_to_one_give_back_the_dense_output(
    variant: str, settings: dict[str, int], tmp_path: Path
) -> None:
    dense = build(variant)
    found, state = made(dense, **settings, router_std=1.0)
    assert found.inexact == ()
    assert difference(dense, opened(tmp_path / "m", found, state)) < 1e-10


@pytest.mark.parametrize("variant", ["llama", "mistral", "qwen2-tied", "qwen3"])
def test_an_old_file_without_defaults_means_what_its_class_says(variant: str, tmp_path: Path) -> None:
    """Mixtral's own base of rotary positions and epsilon are others; a Mistral slides unless told not to."""
    config = {**VARIANTS[variant], "rope_theta": 500.0}
    kind = str(config["model_type"])
    plain = {key: value for key, value in config.items() if key != "model_type"}
    torch.manual_seed(0)
    known = transformers.AutoConfig.for_model(kind, **plain, attn_implementation="eager")
    dense = task_class(known).from_config(known).double().eval()
    for parameter in dense.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.4)
    found, state = made(dense, config, experts=3, experts_per_token=2, router_std=1.0)
    assert found.config["rope_parameters"]["rope_theta"] == 500 and found.config["rms_norm_eps"] == 1e-6
    assert found.config.get("sliding_window") == (4096 if variant == "mistral" else None)
    assert difference(dense, opened(tmp_path / "m", found, state)) < 1e-10
    assert "id2label" not in found.config, "only what a file would hold"


def test_shares_among_all_experts_are_right_when_all_are_chosen(tmp_path: Path) -> None:
    dense = build("llama")
    settings = {"experts": 2, "granularity": 2, "routing": "softmax-topk", "router_std": 1.0}
    found, state = made(dense, **settings, experts_per_token=4)
    assert found.config["model_type"] == "qwen2_moe" and found.inexact == ()
    assert difference(dense, opened(tmp_path / "all", found, state)) < 1e-10
    found, state = made(dense, **settings, experts_per_token=2)
    assert found.inexact
    changed = difference(dense, opened(tmp_path / "some", found, state))
    found, state = made(dense, **settings, experts_per_token=2, scale="none")
    unscaled = difference(dense, opened(tmp_path / "unscaled", found, state))
    assert 1e-6 < changed < unscaled
    found, state = made(dense, **{**settings, "router_std": 0.0}, experts_per_token=2)
    assert difference(dense, opened(tmp_path / "even", found, state)) < 1e-10, "an even router is exact"


def test_experts_are_copies_and_routers_differ(tmp_path: Path) -> None:
    dense = build("qwen3")
    found, state = made(dense, experts=3, granularity=2, experts_per_token=2, scale="none")
    rows = dense.state_dict()
    for layer in range(2):
        mlp = f"model.layers.{layer}.mlp."
        for expert in range(6):
            half = slice(0, 10) if expert % 2 == 0 else slice(10, 20)
            for part in ("gate_proj", "up_proj", "down_proj"):
                whole = rows[f"{mlp}{part}.weight"]
                expected = whole[:, half] if part == "down_proj" else whole[half]
                assert torch.equal(state[f"{mlp}experts.{expert}.{part}.weight"], expected)
        router = state[f"{mlp}gate.weight"]
        assert router.shape == (6, 24) and torch.equal(router[0], router[1])
        assert len(router.unique(dim=0)) == 3
    assert not torch.equal(state["model.layers.0.mlp.gate.weight"], state["model.layers.1.mlp.gate.weight"])
    for name, tensor in state.items():
        if "mlp" not in name:
            assert torch.equal(tensor, rows[name])
    assert "not scaled" in found.inexact[0]


def test_what_cannot_be_upcycled_is_said() -> None:
    for variant, settings, words in [
        ("gpt2", {}, "a gpt2 cannot be upcycled here"),
        (
            "llama",
            {"granularity": 3, "experts_per_token": 3},
            "20 units cannot be cut into 3 .* 2, 4, 5, 10, 20",
        ),
        ("llama-biases-head_dim", {}, "a mixtral has no place for model.layers.0"),
    ]:
        with pytest.raises(UserError, match=words):
            made(build(variant), **settings)
    qwen3 = build("qwen3")
    sliding = {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 8, "layer_types": None}
    with pytest.raises(UserError, match="some have a sliding window"):
        made(qwen3, {**qwen3.config.to_dict(), **sliding})
    with pytest.raises(UserError, match="no sibling for softmax-topk"):
        made(build("mistral"), routing="softmax-topk")
    for settings, words in [
        ({"granularity": 2, "experts_per_token": 3}, "multiple of granularity"),
        ({"experts": 2, "experts_per_token": 3}, "more experts than there are"),
    ]:
        with pytest.raises(UserError, match=words):
            UpcycleSettings.parse(settings)


def test_a_step_writes_a_mixture(tmp_path: Path) -> None:
    from tiny_language_models import model_for, tokenizer_for

    from warmstart.checkpoint import Lineage, resolve, save_checkpoint

    tokenizer = tokenizer_for("llama")
    model = model_for("llama", len(tokenizer)).float()
    save_checkpoint(tmp_path / "dense", model, tokenizer, lineage=Lineage.of("test"))
    out = Runner(tmp_path / "cache").step(
        "upcycle", {"source": str(tmp_path / "dense"), "experts": 4, "granularity": 2, "experts_per_token": 2}
    )
    mixture = resolve(out)
    assert mixture.family == "mixtral" and mixture.config["num_local_experts"] == 8
    ids = torch.arange(3, 23).reshape(2, 10)
    with torch.no_grad():
        before, after = model(input_ids=ids).logits, mixture.load_model()(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    assert set(load_file(out / "model.safetensors")) == set(mixture.tensors)
    assert mixture.lineage and mixture.lineage.measured["function"] == "unchanged"
