"""Which ways lead to a size, and where the number behind each comes from."""

from __future__ import annotations

import json

import pytest
from plan_jobs import llama

from warmstart.anatomy import anatomy_of
from warmstart.foundation.errors import UserError
from warmstart.shape.plan import PlanSettings, plan, routes, surgeries
from warmstart.shape.plan.surgeries import is_dense_form, relation

BERT = {
    "model_type": "bert",
    "vocab_size": 90,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


def ways(target: dict, source: dict, *, tokens: float = 1e10, **options: object) -> dict[str, object]:
    found = routes(
        anatomy_of(target), {"source": anatomy_of(source)}, tokens=tokens, operations_per_token=7.0, **options
    )
    return {route.surgery: route for route in found}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("same", "same")),
        ({"vocab_size": 40, "max_position_embeddings": 32}, ("same", "same")),
        ({"num_hidden_layers": 2}, ("same", "smaller")),
        ({"num_hidden_layers": 8}, ("same", "larger")),
        ({"intermediate_size": 80}, ("smaller", "same")),
        ({"num_key_value_heads": 2}, ("smaller", "same")),
        ({"hidden_size": 128, "num_attention_heads": 16, "head_dim": 8}, ("larger", "same")),
        ({"hidden_size": 32, "intermediate_size": 320, "head_dim": 8}, ("mixed", "same")),
        (BERT, ("foreign", "foreign")),
    ],
)
def test_relation(changes, expected):
    source = changes if changes is BERT else llama(**changes)
    assert relation(anatomy_of(source), anatomy_of(llama())) == expected


def test_each_surgery_where_it_applies():
    assert set(ways(llama(), llama())) == {"continue"}
    assert set(ways(llama(), llama(num_hidden_layers=2))) == {
        "bert2bert",
        "ligo",
        "mango",
        "depth-upscale",
        "salt",
    }
    assert "depth-upscale" not in ways(llama(), llama(num_hidden_layers=2, intermediate_size=80))
    assert set(ways(llama(), llama(num_hidden_layers=6))) == {"subclone", "subnetwork-distil", "distil"}
    # narrower in one axis, wider in another: neither grown nor cut; a larger one may still teach
    mixed = llama(intermediate_size=80, num_hidden_layers=40)
    assert set(ways(llama(), mixed)) == {"distil"}
    # another vocabulary: no distribution to learn from
    assert set(ways(llama(), llama(num_hidden_layers=6, vocab_size=50))) == {"subclone", "subnetwork-distil"}
    # rotary heads of another size cannot be widened
    assert "bert2bert" not in ways(llama(), llama(hidden_size=32, num_attention_heads=8, head_dim=4))
    assert "bert2bert" in ways({**BERT, "hidden_size": 128}, BERT)
    # too weak a teacher
    assert "salt" not in ways(llama(num_hidden_layers=12), llama(num_hidden_layers=1))


def test_experts_come_from_a_dense_model():
    experts = {"model_type": "mixtral", "num_local_experts": 4}
    target = llama(**experts)
    assert "upcycle" in ways(target, llama())
    assert "upcycle" not in ways(llama(), llama())
    fine = anatomy_of(llama(**experts, intermediate_size=40))
    assert is_dense_form(anatomy_of(llama()), fine), "each expert a quarter of the dense layer"
    assert not is_dense_form(anatomy_of(llama()), anatomy_of(llama(**experts, intermediate_size=60)))
    assert not is_dense_form(anatomy_of(llama(num_hidden_layers=3)), fine)
    assert not is_dense_form(fine, anatomy_of(llama()))


def test_numbers_are_cited_and_measured_ones_win():
    small = llama(num_hidden_layers=2)
    found = ways(llama(), small)
    assert found["mango"].share == pytest.approx(1 - 0.599)
    assert found["bert2bert"].share == pytest.approx(1 - 0.47)
    assert "arXiv 2110.07143" in found["bert2bert"].evidence and "GPT" in found["bert2bert"].evidence
    assert found["mango"].flops == pytest.approx(0.401 * 7 * 1e10)
    assert (found["depth-upscale"].share, found["depth-upscale"].basis) == (None, "none")
    masked = ways({**BERT, "num_hidden_layers": 8}, BERT)
    assert masked["bert2bert"].share == pytest.approx(1 - 0.452)
    assert masked["mango"].share == pytest.approx(1 - 0.392)
    told = ways(llama(), small, measured={"bert2bert": 0.9, "depth-upscale": 0.1})
    assert list(told) == ["depth-upscale", "mango", "ligo", "salt", "bert2bert"]
    assert told["bert2bert"].basis == told["depth-upscale"].basis == "measured"
    with pytest.raises(UserError, match="did you mean 'bert2bert'"):
        ways(llama(), small, measured={"bert2bertt": 0.9})


@pytest.mark.parametrize(("tokens", "saved"), [(1e9, 0.806), (2e10, 0.806), (8e10, 0.206), (1e12, 0.206)])
def test_the_nearest_budget_counts(tokens, saved):
    assert ways(llama(), llama(num_hidden_layers=6), tokens=tokens)[
        "subnetwork-distil"
    ].share == pytest.approx(1 - saved)


def test_training_on_comes_first_and_unknown_last():
    anatomies = {"same": anatomy_of(llama()), "small": anatomy_of(llama(num_hidden_layers=2))}
    found = routes(anatomy_of(llama()), anatomies, tokens=1e9, operations_per_token=1.0)
    assert (found[0].surgery, found[0].source) == ("continue", "same")
    known = [route.share for route in found[1:] if route.share is not None]
    assert known == sorted(known)
    assert [route.share for route in found[1 + len(known) :]] == [None] * (len(found) - 1 - len(known))


def test_every_number_has_a_paper():
    for name, surgery in surgeries().items():
        assert surgery.does
        if surgery.published:
            assert surgery.title and surgery.arxiv, name
            assert all(0 < number.saved < 1 and number.of for number in surgery.published)


def test_routes_are_part_of_the_plan(tmp_path):
    file = tmp_path / "small.json"
    file.write_text(json.dumps(llama(num_hidden_layers=2)))
    found = plan(PlanSettings(config=llama(), hardware="l4", sources=[str(file)], measured={"ligo": 0.3}))
    assert found["routes"][0]["surgery"] == "ligo"
    assert found["routes"][0]["flops"] == pytest.approx(0.3 * found["operations"]["run"])
