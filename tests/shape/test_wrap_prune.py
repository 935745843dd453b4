"""Pruning under an update: the right entries, zeros that stay, and whole heads that leave the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anatomy_models import build
from shape_files import stored, tensors

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.checkpoint.forms._wrapped import places
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.shape.stored import Stored
from warmstart.shape.wrap._model import wrap_model
from warmstart.shape.wrap._prune import prune_model

SPARSE = {"name": "sparse-low-rank", "rank": 2, "entries": 9, "alpha": 4}


def wrapped(variant: str, *maps: str) -> Any:
    """A wrapped model whose updates are not zero."""
    model = build(variant)
    wrap_model(model, SPARSE, maps=maps)
    with torch.no_grad():
        for _, module in places(model):
            module.b.normal_(0, 0.3)
            module.values.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("by", ["weight", "update"])
@pytest.mark.parametrize(
    ("variant", "maps"), [("bert", ("self.query", "self.value")), ("gpt2", ("queries",))]
)
def test_the_smallest_entries_of_two_pools_become_zeros(variant: str, maps: Any, by: Any) -> None:
    model, share = wrapped(variant, *maps), 0.3
    found = dict(places(model))
    old = {name: module.base.clone() for name, module in found.items()}
    ranks = {
        name: (2 * (m.b @ m.a) + (m.matrix() - 2 * m.b @ m.a if by == "weight" else 0)).detach().abs()
        for name, m in found.items()
    }
    if by == "update":
        for name, m in found.items():
            sparse = torch.zeros(m.base.numel(), dtype=torch.float64)
            sparse[m.positions] = m.values.detach()
            ranks[name] = (2 * (m.b @ m.a).detach() + 2 * sparse.view_as(m.base)).abs()
    dense = {n: p.detach().clone() for n, p in model.named_parameters() if p.ndim == 2 and ".1." in n}
    factors = [p.detach().clone() for m in found.values() for p in (m.b, m.a, m.values)]
    measured = prune_model(model, share, by=by)
    everything = torch.cat([rank.flatten() for rank in ranks.values()]).sort().values
    limit = everything[round(share * len(everything)) - 1]
    for name, module in found.items():
        assert torch.equal(module.base, torch.where(ranks[name] <= limit, 0, old[name]))
    assert sum(int((m.base == 0).sum()) for m in found.values()) == round(share * len(everything))
    assert all(
        torch.equal(a, p) for a, p in zip(factors, (p for m in found.values() for p in (m.b, m.a, m.values)))
    )
    others = {n for n in dense if n.rpartition(".")[2] == "weight"}
    now = dict(model.named_parameters())
    kept = torch.cat([dense[n][now[n] != 0].abs() for n in others])
    gone = torch.cat([dense[n][now[n] == 0].abs() for n in others])
    assert len(gone) and gone.max() <= kept.min()
    assert measured["pruned"] == pytest.approx(share, abs=1e-3) and measured["output error"] > 0.01


def test_what_cannot_be_pruned_is_said() -> None:
    model = build("bert")
    wrap_model(model, SPARSE, maps=["self.query"])
    with pytest.raises(UserError, match="updates are all zero"):
        prune_model(model, 0.5, by="update")
    model = build("bert")
    wrap_model(model, {"name": "low-rank", "frozen": False}, maps=["self.query"])
    with pytest.raises(UserError, match=r"no frozen matrix .*export the model first"):
        prune_model(model, 0.5)
    plain = build("gpt2")
    assert prune_model(plain, 0.25)["pruned"] == pytest.approx(0.25, abs=1e-3)


def test_zeros_stay_while_updates_learn(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "bert")
    lines = [f"the river {n} ran past the mill and nobody had asked it why\n" for n in range(300)]
    (tmp_path / "text.txt").write_text("".join(lines))
    runner = Runner(tmp_path / "cache")
    out = runner.step("wrap", {"source": str(source), "method": SPARSE, "maps": ["self.query", "self.value"]})
    pruned = runner.step("prune", {"source": str(out), "share": 0.4})
    assert resolve(pruned).form == resolve(out).form
    train = {
        "source": str(pruned),
        "corpus": {"path": str(tmp_path / "text.txt"), "unit": "line"},
        "trainable": [r"\.(a|b|values)$"],
        "max_steps": 4,
        "block_size": 16,
        "eval_max_bytes": 200,
        "eval_points": [],
    }
    before, after = tensors(pruned), tensors(runner.step("train", train))
    bases = [name for name in before if name.endswith(".base")]
    assert len(bases) == 4 and all(torch.equal(before[name], after[name]) for name in bases)
    zeros = sum(int((before[name] == 0).sum()) for name in bases) / sum(
        before[name].numel() for name in bases
    )
    assert zeros == pytest.approx(0.4, abs=0.01)
    record = json.loads((pruned / "warmstart.json").read_text())["lineage"]["measured"]
    assert record["pruned"] == pytest.approx(0.4, abs=0.01)


def test_heads_with_the_smallest_updates_leave_the_checkpoint(tmp_path: Path) -> None:
    """Wrap, tune, merge, shrink: an ordinary checkpoint that holds the heads by hand."""
    source = stored(tmp_path / "source", "llama", torch.float64)
    model, tokenizer = resolve(source).load_model("auto"), resolve(source).load_tokenizer()
    wrap_model(model, SPARSE, maps=["queries", "v_proj"])
    with torch.no_grad():
        for _, module in places(model):
            module.b.normal_(0, 0.3)
    modules = dict(places(model))
    save_checkpoint(tmp_path / "tuned", model, tokenizer, lineage=Lineage.of("test"))
    runner = Runner(tmp_path / "cache")
    dense = runner.step("export", {"source": str(tmp_path / "tuned")})
    sizes = Stored(resolve(source)).anatomy.sizes
    keep = sizes["g"] // 2  # of a Llama's heads, a divisor of the hidden size
    asked = {"num_key_value_heads": keep, "num_attention_heads": keep * sizes["r"]}
    way = {"name": "update", "reference": str(source)}
    small = runner.step("shrink", {"source": str(dense), "to": asked, "importance": way, "rescale": "none"})
    assert resolve(small).form is None
    merged, cut, width = tensors(dense), tensors(small), sizes["r"] * sizes["e"]
    for layer in range(2):
        place = f"model.layers.{layer}.self_attn."
        query = modules[f"{place}q_proj"].update().abs().view(sizes["g"], -1).sum(1)
        value = modules[f"{place}v_proj"].update().abs().view(sizes["g"], -1).sum(1)
        kept = (query + value).topk(keep).indices.sort().values
        for name, rows in (("q_proj", width), ("k_proj", sizes["e"]), ("v_proj", sizes["e"])):
            whole = merged[f"{place}{name}.weight"].view(sizes["g"], rows, -1)
            assert torch.equal(cut[f"{place}{name}.weight"], whole[kept].flatten(0, 1))
        whole = merged[f"{place}o_proj.weight"].view(-1, sizes["g"], width)
        assert torch.equal(cut[f"{place}o_proj.weight"], whole[:, kept].flatten(1))
    with pytest.raises(UserError, match=r"no weight of F@decoder.0 differs from the reference"):
        runner.step("shrink", {"source": str(dense), "to": {"intermediate_size": 8}, "importance": way})
    way = {"name": "update", "reference": str(small)}
    with pytest.raises(UserError, match="other sizes"):
        runner.step("shrink", {"source": str(dense), "to": asked, "importance": way})
