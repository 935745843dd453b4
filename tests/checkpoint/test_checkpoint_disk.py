"""A full disk, in several ways: the old checkpoint stays, nothing half-written remains, and it is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tiny_checkpoints import bpe, same_weights, tiny_model

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.foundation.errors import UserError

LINEAGE = Lineage.of("train")


def untouched(folder: Path, model) -> bool:
    names = [p.name for p in folder.parent.iterdir()]
    return names == [folder.name] and same_weights(model, resolve(folder).load_model())


def test_too_little_space_is_seen_before_writing(make, tmp_path, monkeypatch):
    folder = make()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    bigger = tiny_model("gpt2")
    with pytest.raises(UserError, match=r"the disk is full: [\d.]+ MB are needed and 0\.0 MB are free"):
        save_checkpoint(folder, bigger, bpe(), lineage=LINEAGE, replace=True)
    assert untouched(folder, tiny_model("llama"))


@pytest.mark.parametrize("where", ["model.safetensors", "tokenizer.json", "README.md"])
def test_a_disk_that_fills_up_while_writing(make, monkeypatch, where):
    import errno

    from warmstart.checkpoint import save

    folder = make()
    if where == "model.safetensors":
        from transformers import LlamaForCausalLM

        def broken(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", broken)
    elif where == "tokenizer.json":
        from transformers import PreTrainedTokenizerFast

        def broken(*args, **kwargs):
            raise Exception("No space left on device (os error 28)")

        monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", broken)
    else:

        def broken(*args, **kwargs):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

        monkeypatch.setattr(save, "render_card", broken)
    with pytest.raises(UserError, match="the disk is full"):
        save_checkpoint(folder, tiny_model("llama"), bpe(), lineage=LINEAGE, replace=True)
    monkeypatch.undo()
    assert untouched(folder, tiny_model("llama"))


def in_child(body: str, *arguments: str) -> str:
    """Run code of this folder's helpers in a process of its own; its output."""
    head = "import sys\nfrom pathlib import Path\nfrom tiny_checkpoints import bpe, tiny_model\n"
    head += "from warmstart.checkpoint import Lineage, save_checkpoint\n"
    head += "from warmstart.foundation.errors import UserError\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(body), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_limit_on_file_size(make):
    folder = make(options={"tie_word_embeddings": True})
    said = in_child(
        """
        import resource, signal
        model, tokenizer = tiny_model("llama", tie_word_embeddings=True), bpe()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
        try:
            save_checkpoint(Path(sys.argv[1]), model, tokenizer, lineage=Lineage.of("train"), replace=True)
        except UserError as error:
            print(error.sentence)
        """,
        str(folder),
    )
    assert "refuses a file of this size" in said and "intact" in said
    assert untouched(folder, tiny_model("llama", tie_word_embeddings=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("free_kilobytes", [0, 4, 24, 56, 68, 72])
def test_a_real_full_disk(tmp_path, monkeypatch, free_kilobytes):
    """A tmpfs that runs full at different moments of a save, with the estimate switched off."""
    from warmstart.checkpoint import save

    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system does not let root mount a tmpfs")
    try:
        monkeypatch.setattr(save, "_check_space", lambda *args: None)
        model, folder = tiny_model("llama"), disk / "run" / "model"
        save_checkpoint(folder, model, bpe(), lineage=LINEAGE)
        needed = sum(-(-p.stat().st_size // 4096) * 4 for p in folder.iterdir())
        assert free_kilobytes < needed
        free = shutil.disk_usage(disk).free
        (disk / "filler").write_bytes(b"x" * (free - free_kilobytes * 1024))
        for out, replace in ((folder.parent / "second", False), (folder, True)):
            with pytest.raises(UserError, match="the disk is full"):
                save_checkpoint(out, tiny_model("llama"), bpe(), lineage=LINEAGE, replace=replace)
            assert untouched(folder, model)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_an_existing_folder_is_not_replaced_unasked(make):
    folder = make()
    with pytest.raises(UserError, match="already exists"):
        save_checkpoint(folder, tiny_model("gpt2"), bpe(), lineage=LINEAGE)
    assert untouched(folder, tiny_model("llama"))
    save_checkpoint(folder, tiny_model("gpt2"), bpe(), lineage=LINEAGE, replace=True)
    assert untouched(folder, tiny_model("gpt2"))


def test_a_diverged_model_is_not_saved(make):
    folder, model = make(), tiny_model("llama")
    model.model.norm.weight.data[3] = float("nan")
    with pytest.raises(
        UserError, match=r"NaN or infinite values \(in model\.norm\.weight\); nothing was saved"
    ):
        save_checkpoint(folder, model, bpe(), lineage=LINEAGE, replace=True)
    assert untouched(folder, tiny_model("llama"))


def test_a_killed_save_leaves_the_old_checkpoint(make):
    """SIGKILL in the middle of a save: the old folder opens, and the rest is recognisable rubbish."""
    folder = make()
    in_child(
        """
        import os, signal, subprocess
        from warmstart.checkpoint import save
        pid = os.fork()
        if pid == 0:
            save.render_card = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)
            out, lineage = Path(sys.argv[1]), Lineage.of("train")
            save_checkpoint(out, tiny_model("gpt2"), bpe(), lineage=lineage, replace=True)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        """,
        str(folder),
    )
    from warmstart.foundation.files import sweep

    assert len(list(folder.parent.glob(".*.tmp-*"))) == 1
    sweep(folder.parent)
    assert untouched(folder, tiny_model("llama"))
