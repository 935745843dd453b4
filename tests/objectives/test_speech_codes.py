"""Speech codes: what thinning and erasure leave, and the loss written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from objectives_taught import Vocabulary, model
from torch.nn import functional as F

from warmstart.foundation.errors import UserError
from warmstart.objectives import LossModule, objectives

CODES = list(range(5, 20))


def objective(**options: Any) -> Any:
    parts = {key: options.pop(key) for key in ("codes", "features", "classes", "erased") if key in options}
    entry = objectives.get("speech-codes")
    return entry.target(entry.settings.parse(options), Vocabulary(), **{"codes": CODES, "erased": 4, **parts})


def blocks(rows: int = 6, length: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 20, (rows, length))


def test_thinning_keeps_order_and_places_in_time() -> None:
    text = blocks()
    found = objective(thinning_prob=0.3, erasure_prob=0).collate(text, np.random.default_rng(1))
    ids, labels, at = (found[k].numpy() for k in ("input_ids", "labels", "position_ids"))
    dropped = 0
    for row, line, goal, places in zip(text, ids, labels, at, strict=True):
        count = int((goal >= 0).sum())
        assert (goal[:count] == line[:count]).all() and (goal[count:] == -100).all()
        assert (np.diff(places[:count]) > 0).all() and places[0] == 0
        assert (row[places[:count]] == line[:count]).all()
        gone = np.setdiff1d(np.arange(len(row)), places[:count])
        assert np.isin(row[gone], CODES).all(), "text was left out"
        dropped += len(gone)
    assert 0.15 < dropped / np.isin(text, CODES).sum() < 0.45
    assert ids.shape[1] == (labels >= 0).sum(1).max() < text.shape[1]


def test_erasure_hides_codes_and_asks_for_nothing_there() -> None:
    text = blocks(400)
    found = objective(thinning_prob=0, erasure_prob=0.1, erasure_length=4).collate(
        text, np.random.default_rng(1)
    )
    ids, labels = found["input_ids"].numpy(), found["labels"].numpy()
    hidden = labels < 0
    assert (ids[hidden] == 4).all() and np.isin(text[hidden], CODES).all()
    assert (ids[~hidden] == text[~hidden]).all() and (labels[~hidden] == text[~hidden]).all()
    # codes are 15 of 19 tokens; spans that overlap or run over the end hide a little less
    assert 0.055 < hidden.mean() < 0.1 * 15 / 19
    runs = np.diff(np.flatnonzero(np.diff(np.pad(hidden, ((0, 0), (1, 1))).ravel().astype(int))))[::2]
    assert 2 < runs.mean() < 4.5
    assert "position_ids" not in found


def test_nothing_switched_on_is_next_token_prediction() -> None:
    off = {"thinning_prob": 0, "erasure_prob": 0, "next_code_weight": 0}
    made, reader = objective(**off), model(attention_dropout=0.0)
    assert made.companions(reader) is None
    batch = made.collate(blocks(), np.random.default_rng(0))
    plain = objectives.get("causal").target(objectives.get("causal").settings.parse({}), Vocabulary())
    expected = plain.collate(blocks(), np.random.default_rng(0))
    assert batch.keys() == expected.keys() and all(batch[k].equal(expected[k]) for k in batch)
    assert made.loss(reader, batch)[0].equal(plain.loss(reader, expected)[0])


@pytest.mark.parametrize("part", ["next_code_weight", "coarse_weight", "alignment_weight", "all"])
def test_loss_written_out(part: str) -> None:
    """Each part alone and all together, on thinned and erased text, with gradients in the input rows."""
    rng = np.random.default_rng(0)
    features, classes = rng.normal(size=(15, 6)), rng.integers(0, 4, 15)
    weights = dict.fromkeys(("next_code_weight", "coarse_weight", "alignment_weight"), 0.0)
    weights |= dict.fromkeys(weights, 0.3) if part == "all" else {part: 0.3}
    made = objective(features=features, classes=classes, **weights)
    reader = model(attention_dropout=0.0)
    module = LossModule(reader, made)
    batch = made.collate(blocks(), np.random.default_rng(2))
    total, count = module(batch)
    labels, heads = batch["labels"], module.companions
    hidden = reader.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).last_hidden_state

    def nll(head: Any, shift: int) -> torch.Tensor:
        logits = head(hidden[:, :-shift]).flatten(0, 1)
        return F.cross_entropy(logits, labels[:, shift:].flatten(), ignore_index=-100)

    expected = nll(reader.lm_head, 1)
    if "after" in heads:
        expected = expected + 0.3 * nll(heads["after"], 2)
    if "coarse" in heads:
        goals = labels[:, 1:].clone()
        goals[(goals >= 0) & (goals < 5)] = -100
        goals[goals >= 0] = torch.from_numpy(classes)[goals[goals >= 0] - 5]
        logits = heads["coarse"](hidden[:, :-1]).flatten(0, 1)
        expected = expected + 0.3 * F.cross_entropy(logits, goals.flatten(), ignore_index=-100)
    if "alignment" in heads:
        codes = labels[labels >= 5]
        made_of = heads["alignment"](reader.get_input_embeddings().weight[codes])
        goal = torch.from_numpy(features.astype(np.float32)).double()[codes - 5]
        expected = expected + 0.3 * (1 - F.cosine_similarity(made_of, goal)).mean()
    assert len(heads) == (3 if part == "all" else 1)
    assert count.item() == (labels[:, 1:] != -100).sum().item()
    assert (total / count).item() == pytest.approx(expected.item(), rel=1e-10)
    watched = [reader.get_input_embeddings().weight, *heads.parameters()]
    ours, theirs = (torch.autograd.grad(v, watched) for v in (total / count, expected))
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-8)
        assert one.any()


def test_a_gap_in_time_is_no_border_between_texts() -> None:
    """What stands before a gap is still read: the states behind it depend on it."""
    made, reader = objective(thinning_prob=0.5, erasure_prob=0), model().eval()
    from warmstart.objectives._hidden import hidden_states

    batch = made.collate(blocks(1), np.random.default_rng(0))
    ids, at = batch["input_ids"], batch["position_ids"][0]
    gap = int((at.diff() > 1).nonzero()[-1]) + 1
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "input_ids")}
    other = ids.clone()
    other[0, 0] = 1 + ids[0, 0] % 4
    one, two = (hidden_states(reader, i, **inputs)[0][0, gap] for i in (ids, other))
    assert (one - two).abs().max() > 1e-6


def test_wrong_tables_are_refused() -> None:
    with pytest.raises(UserError, match="features has 3 rows for 15 codes"):
        objective(features=np.ones((3, 2)))
    with pytest.raises(UserError, match="no mask token to erase"):
        objective(erased=None, erasure_prob=0.9).collate(blocks(), np.random.default_rng(0))
    assert objective(classes=np.arange(15)).fingerprint != objective().fingerprint
    with pytest.raises(UserError, match="there is no code 23, the tokenizer has 23 tokens"):
        objective(codes=[5, 23])
    with pytest.raises(UserError, match="there is no code -1"):
        objective(codes=[-1, 5])
    with pytest.raises(UserError, match="there is no class -2"):
        objective(classes=np.arange(15) - 2)


class Named(Vocabulary):
    """The same tokens with names."""

    def get_vocab(self) -> dict[str, int]:
        return {f"<{index}>": index for index in range(len(self))}


def from_file(path: Path, **options: Any) -> Any:
    entry = objectives.get("speech-codes")
    return entry.target(entry.settings.parse({"features": str(path), **options}), Named())


def test_a_file_of_features_says_what_the_codes_are(tmp_path: Path) -> None:
    """Names in any order; coarse classes are clusters; the loss is that of the same tables given by hand."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 15)
    vectors = (10 * rng.normal(size=(3, 4))[groups] + rng.normal(size=(15, 4))).astype(np.float32)
    order = rng.permutation(15)
    np.savez(tmp_path / "f.npz", words=np.array([f"<{CODES[i]}>" for i in order]), vectors=vectors[order])
    made = from_file(tmp_path / "f.npz", classes=3, erasure_prob=0)
    assert made.codes.tolist() == CODES and np.array_equal(made.features, vectors)
    pairs = set(zip(made.classes.tolist(), groups.tolist(), strict=True))
    assert len(pairs) == len(set(groups.tolist())), "clusters are the groups"
    assert sorted(from_file(tmp_path / "f.npz").classes.tolist()) == list(range(15)), (
        "fewer codes than classes"
    )
    by_hand = objective(features=vectors, classes=made.classes, erasure_prob=0)
    reader = model(attention_dropout=0.0)
    batch = made.collate(blocks(), np.random.default_rng(2))
    totals = []
    for one in (made, by_hand):
        torch.manual_seed(0)
        totals.append(LossModule(reader, one)(batch)[0].item())
    assert totals[0] == totals[1] and made.fingerprint != from_file(tmp_path / "f.npz").fingerprint


@pytest.mark.parametrize(
    ("words", "vectors", "message"),
    [
        (["<5>", "<99>"], np.eye(2), "'<99>' has a feature and is no token"),
        (["<5>", "<5>"], np.eye(2), "a code has two features"),
        (["<5>", "<6>"], np.ones(2), r"2 words, but vectors of shape \(2,\)"),
        (["<5>", "<6>"], np.ones((3, 2)), r"2 words, but vectors of shape \(3, 2\)"),
        (["<5>", "<6>"], np.ones((2, 0)), r"2 words, but vectors of shape \(2, 0\)"),
        (["<5>", "<6>"], np.array([[1.0], [np.nan]]), "the feature of '<6>' is not finite"),
    ],
)
def test_unusable_features_are_one_sentence(tmp_path: Path, words: Any, vectors: Any, message: str) -> None:
    np.savez(tmp_path / "f.npz", words=np.array(words), vectors=vectors)
    with pytest.raises(UserError, match=message) as caught:
        from_file(tmp_path / "f.npz")
    assert "f.npz" in caught.value.sentence


def test_files_that_hold_no_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", names=np.array(["<5>"]))
    (tmp_path / "g.npz").write_text("no zip")
    np.save(tmp_path / "h.npy", np.eye(2))
    for name in ("f.npz", "g.npz", "h.npy"):
        with pytest.raises(UserError, match="with words and vectors"):
            from_file(tmp_path / name)
    with pytest.raises(UserError, match="no such file of features"):
        from_file(tmp_path / "none.npz")
