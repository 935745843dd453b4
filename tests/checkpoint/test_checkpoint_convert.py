"""Pickled weights through the sandbox: the same weights come out, and nothing in the pickle runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from tiny_checkpoints import same_weights, tiny_model

from warmstart.checkpoint import resolve
from warmstart.checkpoint.convert import convert
from warmstart.foundation.errors import UserError


@pytest.fixture
def pickled(make):
    """A folder whose weights are pickled as `torch.save(model.state_dict())` leaves them."""

    def build(family="llama", shards=1, **options):
        folder, model = make(family, options=options), tiny_model(family, **options)
        (folder / "model.safetensors").unlink()
        (folder / "warmstart.json").unlink()
        state = model.state_dict()
        if shards == 1:
            torch.save(state, folder / "pytorch_model.bin")
            return folder, model
        names = [f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin" for i in range(shards)]
        keys = [k for k in state if k != "lm_head.weight"]
        table = {key: names[i % shards] for i, key in enumerate(keys)}
        for name in names:
            torch.save({k: state[k].clone() for k in keys if table[k] == name}, folder / name)
        (folder / "pytorch_model.bin.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": table})
        )
        return folder, model

    return build


def test_the_named_command_converts(pickled, tmp_path):
    folder, model = pickled("gpt2")
    with pytest.raises(UserError) as caught:
        resolve(folder)
    command = caught.value.fix.split("`")[1].replace("OUT", str(tmp_path / "out")).split()
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = resolve(tmp_path / "out")
    assert same_weights(found.load_model(), model) and "lm_head.weight" not in found.tensors
    assert found.lineage.operation == "convert" and found.lineage.parents[0].name == "model"
    assert found.load_tokenizer()("the")["input_ids"]


def test_shards(pickled, tmp_path):
    folder, model = pickled("llama", shards=2, tie_word_embeddings=True)
    found = convert(folder, tmp_path / "out")
    assert len(list(found.path.glob("model-*-of-00002.safetensors"))) == 2
    assert same_weights(found.load_model(), model)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(UserError, match="shards are missing"):
        convert(folder, tmp_path / "again")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_code_in_a_pickle_does_not_run(pickled, tmp_path, kind):
    folder, _ = pickled()
    trace = tmp_path / "ran"
    payload = {"weight": Evil(trace)}
    if kind == "pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, folder / "pytorch_model.bin")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="not converted") as caught:
        convert(folder, tmp_path / "out")
    assert "\n" not in caught.value.sentence
    assert not trace.exists() and sorted(tmp_path.iterdir()) == before


def test_what_holds_no_weights_is_refused_and_nothing_is_left(pickled, tmp_path):
    folder, _ = pickled()
    torch.save({"epoch": 3}, folder / "pytorch_model.bin")
    shutil.copytree(folder, tmp_path / "old")
    with pytest.raises(UserError, match="no tensor: epoch"):
        convert(folder, tmp_path / "old", replace=True)
    (folder / "pytorch_model.bin").write_bytes(b"garbage")
    with pytest.raises(UserError, match="not converted"):
        convert(folder, tmp_path / "old", replace=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "old"]
    assert (tmp_path / "old" / "pytorch_model.bin").is_file()


def test_the_confinement_holds(tmp_path):
    """The limits that the child sets on itself, tried out in a child."""
    from warmstart.checkpoint import _unpickle

    code = f"""
import sys, importlib.util
spec = importlib.util.spec_from_file_location("child", {str(_unpickle.__file__)!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child._confine(1000, 60)
try:
    bytearray(4 << 30)
    print("memory")
except MemoryError:
    pass
try:
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open({str(tmp_path / "big")!r}, "wb") as file:
        file.write(bytes(3 << 20))
    print("file size")
except OSError:
    pass
print("done")
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["done"], done.stdout + done.stderr
