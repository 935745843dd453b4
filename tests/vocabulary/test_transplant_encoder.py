"""Encoders without a language-model head: a transplant leaves them as they came, but for the vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from vocab_families import FAMILIES
from vocab_tokenizers import STYLES

from warmstart.checkpoint import Checkpoint, Lineage, resolve, save_checkpoint
from warmstart.checkpoint.card import front_matter
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.settings import TransplantSettings
from warmstart.vocabulary.transplant import transplant

CASES = {
    "body": ("bert", "BertModel", {}),
    "body without pooler": ("bert", "BertModel", {"add_pooling_layer": False}),
    "classifier": ("bert", "BertForSequenceClassification", {}),
    "roberta": ("roberta", "RobertaModel", {}),
    "roberta tagger": ("roberta", "RobertaForTokenClassification", {}),
}


def save_encoder(folder: Path, case: str) -> Path:
    """A random encoder, written by transformers itself."""
    import transformers

    family, name, options = CASES[case]
    kind, _, style, sizes = FAMILIES[family]
    tokenizer = STYLES[style]()
    config = AutoConfig.for_model(
        kind, **sizes, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=3
    )
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, name)(config, **options).to(torch.float64).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def moved(folder: Path, case: str) -> tuple[Checkpoint, Checkpoint, VocabMap]:
    source = save_encoder(folder / "source", case)
    style = FAMILIES[CASES[case][0]][2]
    target = STYLES[style](seed=1)
    target.save_pretrained(folder / "tokenizer")
    settings = TransplantSettings.parse({"source": str(source), "tokenizer": str(folder / "tokenizer")})
    after = transplant(settings, folder / "out")
    before = resolve(source)
    old = before.load_tokenizer()
    return before, after, VocabMap.build(old, target, source_size=before.rows, target_size=after.rows)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_architecture_and_keys_stay_and_so_does_all_but_the_vocabulary(case: str, tmp_path: Path) -> None:
    before, after, vocab = moved(tmp_path, case)
    assert before.base_only and after.base_only
    assert after.config["architectures"] == before.config["architectures"] == [CASES[case][1]]
    old, new = tensors(before.path), tensors(after.path)
    assert old.keys() == new.keys()
    (rows,) = (name for name in old if name.endswith("word_embeddings.weight"))
    differing = {name for name in old if not torch.equal(old[name], new[name])}
    positions = {name for name in old if "position_embeddings" in name}
    assert differing - positions == {rows}
    for target, source in (*vocab.overlap, *vocab.roles):
        assert torch.equal(new[rows][target], old[rows][source])
    pieces = {int(i): vocab.pieces(int(i)) for i in vocab.new if vocab.pieces(int(i))}
    assert pieces
    for i, found in pieces.items():
        assert torch.allclose(new[rows][i], old[rows][found].mean(dim=0), atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_result_computes_what_the_source_does_on_shared_tokens(case: str, tmp_path: Path) -> None:
    before, after, vocab = moved(tmp_path, case)
    shared = vocab.overlap[:12]
    models = [c.load_model("auto", as_stored=True) for c in (before, after)]
    assert {type(model).__name__ for model in models} == {CASES[case][1]}
    with torch.no_grad():
        here, there = (
            m(input_ids=torch.from_numpy(shared[None, :, i].copy())) for m, i in zip(models, (1, 0))
        )
    assert torch.allclose(here[0], there[0], atol=1e-12)
    opened = AutoModel.from_pretrained(after.path, dtype=torch.float64)
    assert opened.get_input_embeddings().weight.shape[0] == len(AutoTokenizer.from_pretrained(after.path))


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    found = {}
    for case in ("body", "classifier"):
        _, after, _ = moved(tmp_path / case, case)
        found[case] = front_matter(after.path / "README.md")["pipeline_tag"]
        text = (after.path / "README.md").read_text()
        assert f"An encoder ({CASES[case][1]}) of the bert family" in text
        assert f"model = {CASES[case][1]}.from_pretrained" in text and "MaskedLM" not in text
    assert found == {"body": "feature-extraction", "classifier": "text-classification"}


def test_training_still_gets_a_head_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, after, _ = moved(tmp_path, "body")
    capsys.readouterr()
    model = after.load_model()
    assert (
        type(model).__name__ == "BertForMaskedLM"
        and "no masked-language-model head" in capsys.readouterr().err
    )
    after.load_model(as_stored=True)
    assert "head" not in capsys.readouterr().err
    whole = save_checkpoint(tmp_path / "whole", model, None, lineage=Lineage.of("train"))
    assert not whole.base_only and type(whole.load_model(as_stored=True)).__name__ == "BertForMaskedLM"


def test_words_are_not_predicted_without_a_head(tmp_path: Path) -> None:
    from warmstart.recipes.operations.evaluate import EvaluateSettings, evaluate

    source = save_encoder(tmp_path / "source", "body")
    text = tmp_path / "text.txt"
    text.write_text("some text\n" * 20)
    with pytest.raises(UserError, match="without a masked-language-model head, so it predicts no words"):
        evaluate(EvaluateSettings.parse({"source": str(source), "corpus": str(text)}))


def test_a_distilled_encoder_leaves_as_it_came(tmp_path: Path) -> None:
    from warmstart.recipes.runner import Runner

    source = save_encoder(tmp_path / "source", "body")
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"ther onan {i}\tre heine {i}\n" for i in range(24)))
    given: dict[str, Any] = {"source": str(source), "teacher": str(source), "parallel": str(pairs)}
    given |= {"max_steps": 2, "learning_rate": 1e-2, "block_size": 16, "per_device_train_batch_size": 8}
    output = Runner(tmp_path / "cache").step("train-sentences", given)
    old, new = tensors(source), tensors(output)
    assert old.keys() == new.keys() and resolve(output).config["architectures"] == ["BertModel"]
    changed = {name for name in old if not np.allclose(old[name], new[name], atol=1e-9)}
    assert changed and not any("pooler" in name for name in changed)


def test_what_is_missing_in_a_classifier_is_said(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = save_encoder(tmp_path / "source", "classifier")
    kept = {name: tensor for name, tensor in tensors(folder).items() if "classifier" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"not stored, first classifier\.bias"):
        resolve(folder).load_model(as_stored=True)
