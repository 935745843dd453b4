"""What is saved is what is read: every family, whole and sharded, with and without tied heads."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors import safe_open
from tiny_checkpoints import AUTO, ROWS, TASK, bpe, same_weights, tiny_model, tokenizer_for, wordpiece
from transformers import AutoTokenizer

from warmstart.checkpoint import Checkpoint, Lineage, resolve, save_checkpoint
from warmstart.foundation.errors import UserError

FAMILIES = sorted(AUTO)
LINEAGE = Lineage.of("train")


def stored_names(folder):
    names: list[str] = []
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            names += list(opened.keys())
    return names


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards", ["5GB", "8KB"])
def test_weights_come_back_bit_for_bit(family, shards, tmp_path):
    model, tokenizer = tiny_model(family), tokenizer_for(family)
    saved = save_checkpoint(
        tmp_path / "out", model, tokenizer, lineage=LINEAGE, max_shard_size=shards, verify=True
    )
    found = resolve(tmp_path / "out")
    assert (found.task, found.family) == (TASK[family], family)
    assert same_weights(model, found.load_model())
    assert not found.load_model().training
    plain, info = AUTO[family].from_pretrained(tmp_path / "out", output_loading_info=True)
    assert same_weights(model, plain)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (len(list((tmp_path / "out").glob("*.safetensors"))) > 1) == (shards == "8KB")
    assert saved.fingerprint == found.fingerprint and saved.tensors == found.tensors
    text = "the quick Grüße 123"
    for again in (found.load_tokenizer(), AutoTokenizer.from_pretrained(tmp_path / "out")):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.all_special_tokens == tokenizer.all_special_tokens


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "bert", "roberta"])
def test_a_tied_head_is_stored_once_and_an_untied_one_always(family, tied, tmp_path):
    model = tiny_model(family, tie_word_embeddings=tied)
    save_checkpoint(tmp_path / "out", model, None, lineage=LINEAGE)
    heads = [
        n
        for n in stored_names(tmp_path / "out")
        if n.endswith(("lm_head.weight", "embed_out.weight", "decoder.weight"))
    ]
    assert len(heads) == (0 if tied else 1)
    again = resolve(tmp_path / "out").load_model()
    assert same_weights(model, again)
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied


def test_a_cast_is_stored_and_named(tmp_path):
    model = tiny_model("llama", tie_word_embeddings=True)
    saved = save_checkpoint(tmp_path / "o", model, bpe(), lineage=LINEAGE, dtype="bfloat16", verify=True)
    assert {t.dtype for t in saved.tensors.values()} == {"BF16"}
    assert saved.config["dtype"] == "bfloat16"
    assert len([n for n in saved.tensors if "lm_head" in n]) == 0
    back = saved.load_model()
    assert back.dtype == torch.float32 and saved.load_model("auto").dtype == torch.bfloat16
    assert model.dtype == torch.float32
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor.to(torch.bfloat16).float())


def test_wrapped_models_are_unwrapped(tmp_path):
    model = tiny_model("gpt2")
    save_checkpoint(tmp_path / "o", torch.nn.DataParallel(model), bpe(), lineage=LINEAGE)
    assert same_weights(model, resolve(tmp_path / "o").load_model())


def test_loading_leaves_the_random_generator_alone(make):
    checkpoint = resolve(make("bert"))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    checkpoint.load_model()
    assert torch.equal(torch.rand(3), expected)


def test_fingerprint_depends_on_content_not_on_place(make, tmp_path):
    first, second = resolve(make(name="a")), resolve(make(name="b"))
    assert first.fingerprint == second.fingerprint and len(first.fingerprint) == 32
    other = tiny_model("llama")
    with torch.no_grad():
        other.model.norm.weight[0] += 1e-6
    changed = save_checkpoint(tmp_path / "c", other, bpe(), lineage=LINEAGE)
    assert changed.fingerprint != first.fingerprint


def test_a_resolved_checkpoint_passes_through(make):
    checkpoint = resolve(make())
    assert resolve(checkpoint) is checkpoint and isinstance(checkpoint, Checkpoint)


def test_special_ids_follow_the_tokenizer(tmp_path):
    model, tokenizer = tiny_model("llama"), bpe()  # LlamaConfig says bos 1, eos 2
    model.generation_config.eos_token_id = [2, 4, 250]
    save_checkpoint(tmp_path / "o", model, tokenizer, lineage=LINEAGE)
    config = json.loads((tmp_path / "o" / "config.json").read_text())
    generation = json.loads((tmp_path / "o" / "generation_config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, 2, 1)
    assert (generation["bos_token_id"], generation["pad_token_id"]) == (0, 1)
    assert generation["eos_token_id"] == [2, 4]  # 250 is an ordinary token of this tokenizer


@pytest.mark.parametrize("stated", [True, False])
def test_decoder_start_follows_the_padding_token(stated, tmp_path):
    model, tokenizer = tiny_model("t5"), bpe()  # T5 starts decoding from padding, here id 1
    if stated:
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 0
    save_checkpoint(tmp_path / "o", model, tokenizer, lineage=LINEAGE)
    again = resolve(tmp_path / "o").load_model()
    assert again.config.decoder_start_token_id == again.generation_config.decoder_start_token_id == 1


def test_positions_counted_from_padding_keep_the_function(tmp_path):
    model, tokenizer = tiny_model("roberta"), wordpiece_with_pad_zero()
    save_checkpoint(tmp_path / "o", model, tokenizer, lineage=LINEAGE, verify=True)
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        assert torch.equal(resolve(tmp_path / "o").load_model()(ids).logits, model(ids).logits)


def wordpiece_with_pad_zero():
    tokenizer = wordpiece()
    assert tokenizer.pad_token_id == 0
    return tokenizer


def test_generation_works_after_plain_loading(make):
    folder = make("llama")
    model, tokenizer = AUTO["llama"].from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["the quick", "a"], return_tensors="pt", padding=True)
    batch.pop("token_type_ids", None)
    out = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert out.shape[1] <= batch["input_ids"].shape[1] + 4 and int(out.max()) < ROWS


def test_verification_notices_a_model_that_reads_back_differently(tmp_path):
    model = tiny_model("llama")
    model.model.rotary_emb.inv_freq.mul_(2)  # part of the function, and not stored
    with pytest.raises(UserError, match="computes other logits"):
        save_checkpoint(tmp_path / "o", model, bpe(), lineage=LINEAGE, verify=True)
    assert not (tmp_path / "o").exists() and not list(tmp_path.iterdir())


def test_long_texts_are_tokenised_without_a_warning(make, caplog, monkeypatch):
    tokenizer = resolve(make()).load_tokenizer()
    tokenizer.model_max_length = 4
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert len(tokenizer("a long text " * 9)["input_ids"]) > 4
    assert not caplog.records
