"""Transplants and fresh models on disk: rows by hand, roles, precision, generation, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer
from vocab_families import CASES, FAMILIES, save_source
from vocab_tokenizers import STYLES, sentences

from warmstart.checkpoint import Checkpoint, resolve
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.settings import InitialiseSettings, TransplantSettings
from warmstart.vocabulary.transplant import initialise, transplant

AUTO = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}
all_cases = pytest.mark.parametrize(
    ("family", "tied"), CASES, ids=[f"{f}-{'tied' if t else 'untied'}" for f, t in CASES]
)


def move(
    folder: Path, family: str = "gpt_neox", tied: bool = False, style: str | None = None, **options: Any
) -> tuple[Checkpoint, Checkpoint, VocabMap]:
    """Transplant a fresh random source to a tokenizer trained on other text."""
    dtype = options.pop("dtype", torch.float64)
    source = save_source(
        folder / "source", family, tied, extra_rows=options.pop("extra_rows", 0), dtype=dtype
    )
    target = STYLES[style or FAMILIES[family][2]](seed=1)
    target.save_pretrained(folder / "tokenizer")
    settings = TransplantSettings.parse(
        {"source": str(folder / "source"), "tokenizer": str(folder / "tokenizer"), **options}
    )
    out = transplant(settings, folder / "out")
    before = resolve(folder / "source")
    return before, out, VocabMap.build(source, target, source_size=before.rows, target_size=out.rows)


def rows_of(checkpoint: Checkpoint, *, head: bool = False) -> np.ndarray:
    model = checkpoint.load_model("auto")
    module = model.get_output_embeddings() if head else model.get_input_embeddings()
    return module.weight.detach().numpy()


@all_cases
def test_mean_of_pieces_by_hand_and_opens_in_transformers(family: str, tied: bool, tmp_path: Path) -> None:
    before, after, vocab = move(tmp_path, family, tied)
    for head in (False, True):
        old, new = rows_of(before, head=head), rows_of(after, head=head)
        for target, source in (*vocab.overlap, *vocab.roles):
            assert (new[target] == old[source]).all()
        mixed = [i for i in vocab.new if vocab.pieces(int(i))]
        assert mixed
        for i in mixed:
            assert np.allclose(new[i], old[vocab.pieces(int(i))].mean(axis=0), atol=1e-12)
        assert np.allclose(new[vocab.unmatched_special], old[vocab.source_used].mean(axis=0), atol=1e-12)
    task = FAMILIES[family][1]
    model = AUTO[task].from_pretrained(after.path)
    tokenizer = AutoTokenizer.from_pretrained(after.path)
    assert model.config.vocab_size == len(tokenizer) == after.rows
    for role in ("bos", "eos", "pad"):
        ids = getattr(model.config, f"{role}_token_id", None), getattr(tokenizer, f"{role}_token_id")
        assert ids[0] == ids[1] or role == "pad"
    inputs = tokenizer(sentences(9, 1)[0], return_tensors="pt")
    if task == "masked":
        assert torch.isfinite(model(**inputs).logits).all()
    else:
        made = model.generate(**inputs, max_new_tokens=5, do_sample=False)
        assert isinstance(tokenizer.decode(made[0]), str) and int(made.max()) < after.rows


def test_head_bias_follows_the_rows(tmp_path: Path) -> None:
    before, after, vocab = move(tmp_path, "bert", True)
    old, new = (c.load_model("auto").cls.predictions.decoder.bias.detach().numpy() for c in (before, after))
    for target, source in vocab.overlap:
        assert new[target] == old[source]
    for i in vocab.new:
        pieces = vocab.pieces(int(i))
        assert new[i] == pytest.approx(old[pieces].mean() if pieces else old.mean(), abs=1e-12)


def test_half_precision_stays_and_copies_are_bit_equal(tmp_path: Path) -> None:
    before, after, vocab = move(tmp_path, "llama", False, dtype=torch.bfloat16)
    old = before.load_model("auto").get_output_embeddings().weight
    new = after.load_model("auto").get_output_embeddings().weight
    assert old.dtype == new.dtype == torch.bfloat16 and after.config["dtype"] == "bfloat16"
    target, source = torch.from_numpy(vocab.overlap.T.copy())
    assert torch.equal(new[target], old[source])


@pytest.mark.parametrize(
    ("initialiser", "copy", "copied"),
    [
        ("random", None, False),
        ("random", True, True),
        ("normal", None, True),
        ("normal", False, False),
        ("mean-of-pieces", None, True),
    ],
)
def test_copying_overlap_is_a_setting_with_a_default_per_method(
    initialiser: str, copy: bool | None, copied: bool, tmp_path: Path
) -> None:
    before, after, vocab = move(tmp_path, initialiser=initialiser, copy_overlap=copy)
    old, new = rows_of(before), rows_of(after)
    same = [(new[t] == old[s]).all() for t, s in vocab.overlap]
    assert all(same) if copied else not any(same)
    assert all((new[t] == old[s]).all() for t, s in vocab.roles)


def test_scale_of_random_rows(tmp_path: Path) -> None:
    before, after, vocab = move(tmp_path / "a", initialiser="random")
    assert rows_of(after)[vocab.text_ids].std() == pytest.approx(0.02, rel=0.05)
    _, uniform, _ = move(tmp_path / "b", initialiser={"name": "random", "distribution": "uniform"})
    assert 0.97 < abs(rows_of(uniform)[vocab.text_ids]).max() <= 1
    _, normal, _ = move(tmp_path / "c", initialiser="normal", copy_overlap=False)
    for head in (False, True):
        assert np.allclose(rows_of(normal, head=head).std(), rows_of(before, head=head).std(), rtol=0.05)


def test_seeds_decide_random_rows_and_nothing_else(tmp_path: Path) -> None:
    found = [
        rows_of(move(tmp_path / name, initialiser="normal", seed=seed)[1])
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert (found[0] == found[1]).all() and not np.allclose(found[0], found[2])


def test_untied_head_gets_its_own_random_rows(tmp_path: Path) -> None:
    _, after, vocab = move(tmp_path, initialiser="random")
    rows, head = rows_of(after)[vocab.text_ids], rows_of(after, head=True)[vocab.text_ids]
    assert abs(np.corrcoef(rows.ravel(), head.ravel())[0, 1]) < 0.1


def test_norm_match_and_report(tmp_path: Path) -> None:
    _, plain, vocab = move(tmp_path / "a")
    _, matched, _ = move(tmp_path / "b", norm_match=True)
    counts = plain.lineage.measured
    assert counts["overlap"] == len(vocab.overlap) and counts["new"] == len(vocab.new)
    assert counts["input_rows"]["copied_rows"] + counts["input_rows"]["mixed_rows"] <= len(vocab.target)
    free, scaled = (c.lineage.measured["input_rows"] for c in (plain, matched))
    assert free["mixed_norm"] < 0.95 * free["copied_norm"]
    assert scaled["mixed_norm"] == pytest.approx(scaled["copied_norm"], rel=0.03)
    assert plain.lineage.parents[0].fingerprint == resolve(tmp_path / "a" / "source").fingerprint


def test_across_styles_and_from_a_bare_tokenizer_json(tmp_path: Path) -> None:
    save_source(tmp_path / "source", "bert", True)
    STYLES["unigram"](seed=1).save_pretrained(tmp_path / "t")
    settings = TransplantSettings(
        source=str(tmp_path / "source"), tokenizer=str(tmp_path / "t/tokenizer.json")
    )
    after = transplant(settings, tmp_path / "out")
    tokenizer = after.load_tokenizer()
    assert tokenizer.mask_token == "<mask>" and tokenizer.pad_token == "<pad>"
    assert after.config["pad_token_id"] == tokenizer.pad_token_id


@pytest.mark.parametrize("style", ["bpe", "unigram", "llama"])
def test_a_tokenizer_that_transformers_would_rebuild_is_refused(style: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="opens every qwen2 folder with a tokenizer class of its own"):
        move(tmp_path, "qwen2", True, style=style)
    config = {"model_type": "qwen2", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    with pytest.raises(UserError, match="opens every qwen2 folder"):
        fresh(tmp_path, config=config)
    assert not (tmp_path / "out").exists() and not (tmp_path / "fresh").exists()


@pytest.mark.parametrize(
    ("family", "style"),
    [("llama", "unigram"), ("llama", "bpe"), ("mistral", "wordpiece"), ("gpt2", "unigram"), ("bert", "bpe")],
)
def test_saved_tokenizers_of_other_styles_open_as_they_are(family: str, style: str, tmp_path: Path) -> None:
    _, after, _ = move(tmp_path, family, True, style=style)
    opened, given = AutoTokenizer.from_pretrained(after.path), STYLES[style](seed=1)
    for text in (*sentences(4, 20), "  two  spaces\n\n é漢 it's"):
        assert opened(text)["input_ids"] == given(text)["input_ids"]
    assert given.pad_token_id == after.load_model("auto").config.pad_token_id


def test_roberta_refuses_a_tokenizer_without_padding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="counts positions from the padding token"):
        move(tmp_path, "roberta", True, style="gpt2")
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(Checkpoint, "load_model", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(UserError, match=r"needs about .* GiB of memory"):
        move(tmp_path)
    with pytest.raises(UserError, match=r"needs about .* GiB of memory"):
        initialise(
            InitialiseSettings(like=str(tmp_path / "source"), tokenizer=str(tmp_path / "tokenizer")),
            tmp_path / "fresh",
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initialiser": "mean-of-piece"}, "did you mean 'mean-of-pieces'"),
        ({"initialiser": {"name": "random", "scal": 1}}, "did you mean 'scale'"),
        ({"initialiser": {"scale": 1}}, "no name"),
        ({"initialiser": {"name": "random", "scale": -1}}, "scale"),
        ({"norm_macth": True}, "did you mean 'norm_match'"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TransplantSettings.parse({"source": "a", "tokenizer": "b", **options})


def test_bad_folders_are_named(tmp_path: Path) -> None:
    save_source(tmp_path / "source", "llama", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    for tokenizer in ("empty", "broken.json"):
        settings = TransplantSettings(source=str(tmp_path / "source"), tokenizer=str(tmp_path / tokenizer))
        with pytest.raises(UserError, match="tokenizer"):
            transplant(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# initialise


def fresh(folder: Path, name: str = "fresh", **options: Any) -> Checkpoint:
    return initialise(
        InitialiseSettings.parse({"tokenizer": str(folder / "tokenizer"), **options}), folder / name
    )


@all_cases
def test_initialise_like_a_checkpoint(family: str, tied: bool, tmp_path: Path) -> None:
    save_source(tmp_path / "source", family, tied)
    target = STYLES[FAMILIES[family][2]](seed=1)
    target.save_pretrained(tmp_path / "tokenizer")
    made = fresh(tmp_path, like=str(tmp_path / "source"))
    old, new = resolve(tmp_path / "source").load_model(), made.load_model()
    assert type(old) is type(new)
    shapes = [{n: tuple(t.shape) for n, t in m.state_dict().items()} for m in (old, new)]
    assert shapes[0].keys() == shapes[1].keys()
    assert (new.get_output_embeddings().weight is new.get_input_embeddings().weight) == tied
    different = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    assert all(shapes[1][name][0] == len(target) for name in different)
    ignored = ("vocab_size", "dtype", "_name_or_path", "transformers_version")
    a, b = ({k: v for k, v in m.config.to_dict().items() if k not in ignored} for m in (old, new))
    assert {k for k in a if a[k] != b.get(k)} <= {"bos_token_id", "eos_token_id", "pad_token_id"}
    weight = new.get_input_embeddings().weight.detach()
    assert float(weight[5:].std()) == pytest.approx(1.0 if family.startswith("t5") else 0.02, rel=0.1)
    if new.get_input_embeddings().padding_idx is not None:
        assert not weight[target.pad_token_id].any()


def test_initialise_from_sizes_is_seeded(tmp_path: Path) -> None:
    STYLES["bpe"]().save_pretrained(tmp_path / "tokenizer")
    sizes = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(123)
    state = torch.get_rng_state()
    runs = [fresh(tmp_path, f"run{i}", config=sizes, seed=seed) for i, seed in enumerate((0, 0, 1))]
    assert torch.equal(torch.get_rng_state(), state)
    first, same, other = (run.load_model().state_dict() for run in runs)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    assert runs[0].config["hidden_size"] == 16 and runs[0].config["vocab_size"] == 420
    assert runs[0].config["eos_token_id"] == STYLES["bpe"]().eos_token_id
    written = json.loads((runs[0].path / "warmstart.json").read_text())
    assert written["lineage"]["operation"] == "initialise"
    smaller = fresh(
        tmp_path, "smaller", like=str(runs[0].path), config={"hidden_size": 8}, pad_to_multiple_of=64
    )
    assert smaller.rows == 448 and smaller.config["hidden_size"] == 8 and smaller.config["head_dim"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "model_type"),
        ({"config": {"model_type": "lama"}}, "did you mean 'llama'"),
        ({"config": {"model_type": "llama", "hiden_size": 8}}, "did you mean 'hidden_size'"),
        ({"config": {"model_type": "llama", "hidden_size": 10, "num_attention_heads": 3}}, "agree"),
        ({"config": {"model_type": "roberta", "max_position_embeddings": 2}}, "leaves no position"),
    ],
)
def test_impossible_models_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    STYLES["bpe"]().save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(UserError, match=message):
        fresh(tmp_path, **options)
