"""Growth that can be exact is exact in float64, in every axis of every family."""

from __future__ import annotations

from typing import Any

import pytest
from anatomy_models import VARIANTS
from shape_models import difference

from warmstart.anatomy import Anatomy
from warmstart.shape.grow import GrowSettings, grow
from warmstart.shape.reshape import Reshape

OTHERS = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "vit", "deit")  # grown from files: test_grow_layouts
PLAIN = [name for name in VARIANTS if not name.endswith("-cross") and not name.startswith(OTHERS)]
POST = [name for name in PLAIN if "bert" in name]
KEYS = {  # role of a size: its configuration keys in the families
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "units": ("intermediate_size", "n_inner", "d_ff"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
}


def key_of(anatomy: Anatomy, role: str) -> str:
    return next(key for key in KEYS[role] if key in anatomy.table.config)


def grown(to: dict[str, int], **settings: Any) -> Any:
    def make(anatomy: Anatomy) -> Reshape:
        named = {key_of(anatomy, role) if role in KEYS else role: size for role, size in to.items()}
        if "units" in to:
            named[key_of(anatomy, "units")] += anatomy.sizes["F"]
        return grow(anatomy, GrowSettings.parse({"to": named, **settings}))

    return make


@pytest.mark.parametrize("split", ["even", "uneven"])
@pytest.mark.parametrize("variant", PLAIN)
def test_units_of_the_mlp(variant: str, split: str) -> None:
    found, reshape = difference(variant, grown({"units": 13}, width={"name": "exact", "split": split}))
    assert found < 1e-10 and reshape.inexact == ()


@pytest.mark.parametrize("variant", PLAIN)
def test_hidden_size_by_a_whole_factor(variant: str) -> None:
    found, reshape = difference(variant, grown({"hidden": 72}))
    assert found < 1e-10 and reshape.inexact == ()


@pytest.mark.parametrize("variant", PLAIN)
def test_hidden_size_to_any_size(variant: str) -> None:
    found, reshape = difference(variant, grown({"hidden": 36}))
    assert (found < 1e-10) is (reshape.inexact == ())
    assert bool(reshape.inexact) is (variant in POST or "qwen3" in variant)
    if "qwen3" in variant:
        assert found < 1e-4, "only the epsilon of the heads' norms"


@pytest.mark.parametrize("variant", PLAIN)
def test_layers(variant: str) -> None:
    found, reshape = difference(variant, grown({"layers": 5}))
    assert (found < 1e-10) is (variant not in POST) is (reshape.inexact == ())


@pytest.mark.parametrize("variant", PLAIN)
def test_heads(variant: str) -> None:
    """Twice the heads; where their size follows from the hidden size, that is doubled as well."""
    forced = "gpt" in variant or "bert" in variant
    found, reshape = difference(variant, grown({"heads": 8, **({"hidden": 48} if forced else {})}))
    assert found < 1e-10 and reshape.inexact == ()
    assert reshape.new.sizes["e"] == reshape.old.sizes["e"]


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "mistral", "qwen2-tied", "qwen3"])
@pytest.mark.parametrize(
    "to", [{"num_key_value_heads": 6, "heads": 12}, {"heads": 6}, {"num_key_value_heads": 3, "heads": 12}]
)
def test_groups_of_heads(variant: str, to: dict[str, int]) -> None:
    found, reshape = difference(variant, grown(to))
    assert found < 1e-10 and reshape.inexact == ()


@pytest.mark.parametrize("variant", ["t5", "t5-v1.1", "mt5"])
def test_size_of_a_head_without_scaled_scores(variant: str) -> None:
    assert difference(variant, grown({"d_kv": 9}))[0] < 1e-10


@pytest.mark.parametrize("variant", [name for name in PLAIN if "gpt" in name or "bert" in name])
def test_size_of_a_head_that_follows_from_the_hidden_size(variant: str) -> None:
    """The number of heads is named, so their size doubles; GPT-NeoX lets the same places rotate as before."""
    found, reshape = difference(variant, grown({"hidden": 48, "heads": 4}))
    assert found < 1e-10 and reshape.inexact == ()
    assert reshape.new.sizes["e"] == 2 * reshape.old.sizes["e"]


@pytest.mark.parametrize("variant", ["gpt2", "bert", "roberta"])
def test_positions(variant: str) -> None:
    key = "n_positions" if variant == "gpt2" else "max_position_embeddings"
    assert difference(variant, grown({key: 40}))[0] < 1e-10


@pytest.mark.parametrize("variant", PLAIN)
def test_everything_at_once(variant: str) -> None:
    to = {"hidden": 48, "heads": 8, "units": 7, "layers": 3}
    found, _ = difference(variant, grown(to, seed=3))
    assert (found < 1e-10) is (variant not in POST)
