"""What `inspect` says about a checkpoint, and that it reads no weights for it."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_checkpoints import AUTO, ROWS, TASK, bpe, edit_json, poke, tiny_model
from transformers import BertModel, PreTrainedTokenizerFast

from warmstart.checkpoint import Lineage, inspect, resolve, save_checkpoint


@pytest.mark.parametrize("family", sorted(AUTO))
def test_counts_agree_with_the_model(make, family):
    folder = make(family, max_shard_size="8KB")
    said = inspect(folder)
    model = tiny_model(family)
    total = sum(p.numel() for p in model.parameters())
    assert said["parameters"]["total"] == total
    assert sum(n for part, n in said["parameters"].items() if part not in ("total", "non_embedding")) == total
    assert said["parts_from"] == "anatomy"
    assert (said["family"], said["task"], said["rows"]) == (family, TASK[family], ROWS)
    assert said["architecture"] == type(model).__name__
    assert said["dtypes"] == {"F32": total} and said["shards"] > 1
    assert said["bytes"] == sum(p.stat().st_size for p in folder.glob("*.safetensors")) > 4 * total
    assert said["tied"] == bool(model.get_output_embeddings().weight is model.get_input_embeddings().weight)
    assert json.loads(json.dumps(said)) == said


def test_a_family_without_a_table_is_counted_by_module(tmp_path):
    from transformers import AutoModelForCausalLM, OPTConfig

    config = OPTConfig(vocab_size=300, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2)
    model = AutoModelForCausalLM.from_config(config)
    save_checkpoint(tmp_path / "o", model, bpe(), lineage=Lineage.of("train"))
    said = inspect(tmp_path / "o")
    assert said["parts_from"] == "modules"
    assert said["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert said["parameters"]["model.decoder"] > 0


@pytest.mark.parametrize(
    "family, kind, role", [("llama", "BPE", "eos"), ("bert", "WordPiece", "mask"), ("t5", "Unigram", "pad")]
)
def test_tokenizers(make, family, kind, role):
    folder = make(family)
    told, tokenizer = inspect(folder)["tokenizer"], resolve(folder).load_tokenizer()
    assert (told["kind"], told["ids"]) == (kind, len(tokenizer))
    assert told["byte_level"] == (family == "llama") and told["byte_fallback"] is False
    assert told["special"][role] == {
        "token": getattr(tokenizer, f"{role}_token"),
        "id": getattr(tokenizer, f"{role}_token_id"),
    }


def test_the_weights_are_not_read(make):
    folder = make()
    poke(folder / "model.safetensors", "model.norm.weight", float("nan"))
    assert inspect(folder)["family"] == "llama"


def risks(folder) -> str:
    return "; ".join(inspect(folder, trust_remote_code=True)["risks"])


def test_risks(make, tmp_path):
    folder = make()
    assert risks(folder) == "no licence is stated; 20 of 300 embedding rows belong to no token (padding)"
    torch.save({}, folder / "optimizer.pt")
    (folder / "odd.safetensors").write_bytes(b"")
    (folder / "mine.py").write_text("")
    assert (
        "optimizer.pt" in risks(folder) and "odd.safetensors" in risks(folder) and "mine.py" in risks(folder)
    )
    (folder / "warmstart.json").unlink()
    edit_json(folder / "config.json", eos_token_id=9, vocab_size=290)
    told = risks(folder)
    for words in ("no hashes were recorded", "eos_token_id 9, the tokenizer's </s> is 2", "vocab_size 290"):
        assert words in told, told
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "it has no tokenizer" in risks(folder)


def test_risks_of_masked_and_endless_models(make, tmp_path):
    BertModel.from_pretrained(make("bert")).save_pretrained(tmp_path / "body")
    assert "no masked-language-model head is stored" in risks(tmp_path / "body")
    bare = PreTrainedTokenizerFast(tokenizer_object=bpe()._tokenizer)
    save_checkpoint(tmp_path / "x", tiny_model("gpt2"), bare, lineage=Lineage.of("train"))
    edit_json(tmp_path / "x" / "tokenizer.json", added_tokens=[])
    assert "no end-of-text token" in risks(tmp_path / "x") and "no padding token" in risks(tmp_path / "x")


def test_tokenizer_json_alone_is_enough(make):
    folder = make()
    expected = resolve(folder).load_tokenizer()
    (folder / "tokenizer_config.json").unlink()
    alone = resolve(folder).load_tokenizer()
    text = "The  quick brown Grüße 你好"
    assert alone(text)["input_ids"] == expected(text)["input_ids"] and len(alone) == len(expected)
    for role in ("bos", "eos", "pad", "unk", "mask"):
        assert getattr(alone, f"{role}_token_id") == getattr(expected, f"{role}_token_id")


@pytest.mark.parametrize(
    "claimed", ["GPT2Tokenizer", "GPTNeoXTokenizer", "RobertaTokenizer", "Qwen2Tokenizer"]
)
def test_a_class_that_rebuilds_the_pipeline_is_not_believed(make, claimed):
    """transformers 5 adds tokens of its own for these classes: ids without rows."""
    folder = make("gpt2")
    expected = resolve(folder).load_tokenizer()
    edit_json(folder / "tokenizer_config.json", tokenizer_class=claimed, backend=...)
    loaded = resolve(folder).load_tokenizer()
    assert loaded.get_vocab() == expected.get_vocab()
    assert loaded("Grüße  x")["input_ids"] == expected("Grüße  x")["input_ids"]
    assert loaded.eos_token == expected.eos_token


def test_padding_never_adds_an_id(make):
    from warmstart.checkpoint.tokens import pad_safely

    for given, expected in (({"eos_token": "</s>"}, "<pad>"), ({}, "<pad>")):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe()._tokenizer, **given)
        size = len(tokenizer)
        assert pad_safely(tokenizer).pad_token == expected and len(tokenizer) == size
    from tokenizers import Tokenizer, models

    raw = Tokenizer(models.WordLevel({"a": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")
    assert pad_safely(tokenizer).pad_token == "</s>" and len(tokenizer) == 3
