"""Every bad checkpoint ends in one sentence that names the file and the way out, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoints import bpe, edit_json, poke, tiny_model
from transformers import BertModel, LlamaModel

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.checkpoint.verify import verify
from warmstart.foundation.errors import UserError

NORM = "model.norm.weight"


def refused(folder, *words, **options):
    """The folder is refused with a sentence that holds these words; nothing in it changes."""
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        resolve(folder, **options)
    assert "\n" not in caught.value.sentence and caught.value.exit_code == 2
    place = str(folder.parent)  # its name comes from the test's, and must not count as the message
    said = caught.value.sentence.replace(place, "@")
    for word in words:
        assert word.replace(place, "@") in said, said
    assert contents(folder) == before
    return caught.value


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} if folder.is_dir() else None


def test_missing_empty_and_foreign_folders(tmp_path):
    refused(tmp_path / "nothing", "does not exist", str(tmp_path / "nothing"))
    (tmp_path / "bare").mkdir()
    refused(tmp_path / "bare", "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("hello")
    refused(tmp_path / "other", "no config.json")
    refused(tmp_path / "other" / "notes.txt", "is a file")
    with pytest.raises(UserError, match="neither an existing folder nor a hub id"):
        resolve("two words")
    with pytest.raises(UserError, match="no revisions"):
        resolve(tmp_path / "other", revision="main")


def test_a_folder_of_checkpoints_names_the_last_one(make, tmp_path):
    folder = make(name="run/checkpoint-20")
    refused(folder.parent, "no config.json", "did you mean", "checkpoint-20")


def test_an_adapter_is_named_as_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "adapter", "merge")


@pytest.mark.parametrize("text", ["{not json", "[1, 2]", "\xff"])
def test_damaged_config(make, text):
    folder = make()
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refused(folder, "config.json")


@pytest.mark.parametrize("keep", [0, 5, 40, -4, -4000])
def test_truncated_shard(make, keep):
    file = make() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(file.parent, "truncated", "model.safetensors")


def test_shard_with_something_behind_it(make):
    file = make() / "model.safetensors"
    file.write_bytes(file.read_bytes() + b"xx")
    refused(file.parent, "2 bytes after its last tensor")


def test_shard_that_is_something_else(make):
    file = make() / "model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")
    refused(file.parent, "model.safetensors", "not a safetensors file")


def test_header_that_contradicts_itself(make):
    file = make() / "model.safetensors"
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].replace(b'"shape":[16]', b'"shape":[15]', 1)
    file.write_bytes(raw[:8] + header + raw[8 + length :])
    refused(file.parent, "header")


def shards(folder):
    found = sorted(folder.glob("model-*.safetensors"))
    assert len(found) > 2
    return found


@pytest.mark.parametrize("recorded", [True, False])
def test_swapped_and_missing_shards(make, recorded):
    folder = make(max_shard_size="8KB")
    if not recorded:
        (folder / "warmstart.json").unlink()
    first, second, *_ = shards(folder)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    refused(folder, first.name, "swapped")
    second.write_bytes(kept)
    refused(folder, first.name, "swapped")
    first.unlink()
    refused(folder, first.name, "missing")


def test_a_shard_of_another_model_is_noticed_by_its_hash(make, tmp_path):
    folder = make(max_shard_size="8KB")
    other = tiny_model("llama")
    with torch.no_grad():
        other.model.embed_tokens.weight.mul_(2)
    save_checkpoint(tmp_path / "b", other, bpe(), lineage=Lineage.of("train"), max_shard_size="8KB")
    changed = [p for p in shards(folder) if p.read_bytes() != (tmp_path / "b" / p.name).read_bytes()]
    shutil.copyfile(tmp_path / "b" / changed[0].name, changed[0])
    refused(folder, changed[0].name, "SHA-256", "swapped")


def test_one_flipped_bit_is_noticed_even_after_a_good_check(make):
    folder = make()
    resolve(folder)
    poke(folder / "model.safetensors", NORM, 0.25)
    refused(folder, "SHA-256")


def test_index_that_leads_out_of_the_folder(make):
    folder = make(max_shard_size="8KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"][NORM] = "../model.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "outside the folder")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_shard_with_nan_or_infinity(make, value):
    folder = make()
    (folder / "warmstart.json").unlink()  # or else the hash would tell first
    poke(folder / "model.safetensors", NORM, value)
    refused(folder, NORM, "NaN or infinite")
    assert resolve(folder, scan=False).task == "causal"


def test_pickled_weights_name_the_command_that_converts_them(make):
    folder = make()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused(folder, "pickled", "pytorch_model.bin", f"python -m warmstart.checkpoint.convert {folder} OUT")


def test_no_weights_and_foreign_weights(make):
    folder = make()
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    refused(folder, "no weights", "other.safetensors")
    (folder / "other.safetensors").rename(folder / "tf_model.h5")
    refused(folder, "no weights", "TensorFlow")


@pytest.mark.parametrize("kind", ["config", "tokenizer", "file"])
def test_remote_code_needs_trust(make, kind):
    folder = make()
    if kind == "config":
        edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "mine.Model"})
    elif kind == "tokenizer":
        edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Tok", None]})
    else:
        (folder / "modeling_mine.py").write_text("raise SystemExit('ran')")
    refused(folder, "own code", "--trust-remote-code")
    assert resolve(folder, trust_remote_code=True).task == "causal"


def test_trusted_code_runs_and_untrusted_never(make, tmp_path):
    folder = make()
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'a').write('x')\nfrom transformers import LlamaForCausalLM, LlamaConfig\n"
    code += "class Config(LlamaConfig):\n    model_type = 'mine'\n"
    code += "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    (folder / "mine.py").write_text(code)
    mapped = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    edit_json(folder / "config.json", auto_map=mapped, model_type="mine", architectures=["Model"])
    refused(folder, "own code")
    assert not trace.exists()
    model = resolve(folder, trust_remote_code=True).load_model()
    assert type(model).__name__ == "Model" and trace.exists()


def test_tokenizer_with_more_ids_than_rows(make):
    folder = make()
    tokenizer = bpe()
    tokenizer.add_tokens([f"<new{i}>" for i in range(40)])
    tokenizer.save_pretrained(folder)
    (folder / "warmstart.json").unlink()
    refused(folder, f"{len(tokenizer)} ids", "300 embedding rows")


def test_saving_a_tokenizer_with_more_ids_than_rows(tmp_path):
    tokenizer = bpe()
    tokenizer.add_tokens([f"<new{i}>" for i in range(40)])
    with pytest.raises(UserError, match="embedding rows"):
        save_checkpoint(tmp_path / "o", tiny_model("llama"), tokenizer, lineage=Lineage.of("train"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("files", [("vocab.txt",), ("vocab.json", "merges.txt")])
def test_ids_are_counted_in_older_formats_too(make, files):
    folder = make("bert")
    (folder / "warmstart.json").unlink()
    (folder / "tokenizer.json").unlink()
    words = [f"w{i}" for i in range(301)]
    (folder / "vocab.txt").write_text("\n".join(words))
    if "vocab.json" in files:
        (folder / "vocab.txt").unlink()
        (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    refused(folder, "301 ids", "300 embedding rows")


@pytest.mark.parametrize(
    "family, hint", [("lama", "did you mean"), ("resnet", "convert"), ("clip", "convert")]
)
def test_unknown_architecture(make, family, hint):
    folder = make()
    edit_json(folder / "config.json", model_type=family, architectures=["Strange"])
    refused(folder, "unknown architecture", repr(family), hint)


def test_config_without_a_family(make):
    folder = make()
    edit_json(folder / "config.json", model_type=..., architectures=...)
    refused(folder, "no model_type")


def test_edited_settings_are_a_warning_not_an_error(make):
    folder = make()
    edit_json(folder / "generation_config.json", temperature=0.7)
    assert resolve(folder).warnings == ("generation_config.json was changed after it was written",)


def test_exchanged_tokenizer_is_refused(make):
    folder = make()
    bpe(270).save_pretrained(folder)
    refused(folder, "tokenizer.json", "SHA-256")


@pytest.mark.parametrize("change", [{"hidden_size": 32}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_config_that_does_not_belong_to_the_weights(make, change):
    folder = make(options={"tie_word_embeddings": True})
    edit_json(folder / "config.json", **change)
    with pytest.raises(UserError, match=r"config\.json belongs|not stored"):
        resolve(folder).load_model()


def test_body_without_a_causal_head_is_refused(tmp_path, make):
    folder = make(options={"tie_word_embeddings": False})
    LlamaModel.from_pretrained(folder).save_pretrained(tmp_path / "body")
    with pytest.raises(UserError, match=r"lm_head\.weight"):
        resolve(tmp_path / "body").load_model()


def test_bare_encoder_opens_with_a_fresh_head_and_says_so(tmp_path, make, capsys):
    folder = make("bert")
    BertModel.from_pretrained(folder).save_pretrained(tmp_path / "body")
    checkpoint = resolve(tmp_path / "body")
    assert checkpoint.task == "masked" and checkpoint.base_only and not resolve(folder).base_only
    first, second = checkpoint.load_model(), checkpoint.load_model()
    assert "no masked-language-model head" in capsys.readouterr().err
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])  # the fresh head is always the same one
    whole = resolve(folder).load_model()
    assert torch.equal(
        first.bert.encoder.layer[1].output.dense.weight, whole.bert.encoder.layer[1].output.dense.weight
    )


def test_damaged_record(make):
    folder = make()
    edit_json(folder / "warmstart.json", lineage={"operation": "x", "parents": 3})
    with pytest.raises(UserError, match="lineage record is damaged at parents"):
        _ = resolve(folder).lineage


def test_checks_do_not_read_weights_twice(make, monkeypatch):
    import os
    import time

    from warmstart.checkpoint import stamps

    folder = make()
    old = time.time() - 60
    for file in folder.iterdir():
        os.utime(file, (old, old))
    monkeypatch.setattr(stamps, "_touched", lambda file: file.stat().st_mtime)
    calls: list[str] = []
    real = stamps.sha256
    monkeypatch.setattr(stamps, "sha256", lambda file: calls.append(file.name) or real(file))
    verify(folder)
    assert "model.safetensors" in calls
    calls.clear()
    resolve(folder).fingerprint  # all of it is known by now
    assert "model.safetensors" not in calls
    poke(folder / "model.safetensors", NORM, 0.5)
    refused(folder, "SHA-256")


def test_the_command_line_of_bad_input_ends_with_code_two(tmp_path):
    command = [
        sys.executable,
        "-m",
        "warmstart.checkpoint.convert",
        str(tmp_path / "no"),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "does not exist" in done.stderr and "Traceback" not in done.stderr
