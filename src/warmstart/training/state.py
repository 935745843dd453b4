"""The whole state of a run on disk: saved atomically, verified before use, equal bit for bit when loaded.

`checkpoints/step-N/` opens with plain `from_pretrained` and holds besides:

- `optimizer.safetensors`: moments per parameter, `exp_avg/<parameter name>` and so on;
- `companions.safetensors`, where there are any: parameters that learn beside the model (extra heads);
- `state.json`: position of the run, curve so far, random states of every process, and size and SHA-256 of
  every other file. It is written last; a folder without it, or whose files differ from it, is not a
  checkpoint.

Tensors are stored whole, under the names of the unsharded model: the number of processes may change between
runs.
"""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from warmstart.checkpoint.lineage import FORMAT, RECORD
from warmstart.evaluation.curves import CurvePoint
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder, sha256
from warmstart.foundation.progress import note
from warmstart.training.parameters import COMPANIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_STATE, _EXTRA = "state.json", "companions.safetensors"


@dataclass
class RunState:
    """Where a run stands between two steps.

    Attributes:
        step: Optimizer steps taken.
        seconds: Training seconds, without evaluation and saving.
        points: Measurements so far.
        window: Summed loss (nats) and targets since the last point.
        logged: The same since the last log entry.
        log_position: Bytes of `events.jsonl` that belong to this state.
        measure: Whether a measurement is due at this step (the run was stopped before or in it).
        identity: What makes the run this run: settings, data, architecture, starting weights.
        random: Random states, one entry per process.
        untaught: Steps without the objective's teacher.
        penalty: Summed penalty of the model since the last log entry.
    """

    step: int = 0
    seconds: float = 0.0
    points: list[CurvePoint] = field(default_factory=list)
    window: tuple[float, float] = (0.0, 0.0)
    logged: tuple[float, float] = (0.0, 0.0)
    log_position: int = 0
    measure: bool = True
    identity: dict[str, Any] = field(default_factory=dict)
    random: list[dict[str, Any]] = field(default_factory=list)
    untaught: int = 0
    penalty: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values; floats survive exactly."""
        return {**vars(self), "points": [point.model_dump() for point in self.points]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunState:
        """Inverse of `to_json`."""
        plain = {**data, "window": tuple(data["window"]), "logged": tuple(data["logged"])}
        return cls(**{**plain, "points": [CurvePoint(**point) for point in data["points"]]})


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one; every process must call it."""
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def assign(target: Tensor, value: Tensor) -> None:
    """Copy the full tensor `value` into `target`, which may be sharded."""
    with torch.no_grad():
        target.copy_(_like(target, value))


def _like(target: Any, value: Tensor) -> Tensor:
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    return value


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """State tensors of `optimizer` on the CPU as `<state>/<parameter name>`; every process must call it."""
    return {
        f"{key}/{name}": whole(value).cpu()
        for name, parameter in named.items()
        for key, value in sorted(optimizer.state.get(parameter, {}).items())
        if isinstance(value, Tensor)
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned, copied: memory layout, and so rounding, is as before."""
    optimizer.state.clear()
    for full_key, value in tensors.items():
        key, name = full_key.split("/", 1)
        parameter = named[name]
        if value.shape == parameter.shape and key != "step":
            slot = torch.zeros_like(
                parameter, dtype=value.dtype, memory_format=torch.preserve_format
            ).detach()
            assign(slot, value)
        else:
            slot = value.to(parameter.device, copy=True)
        optimizer.state[parameter][key] = slot


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    with safe_open(file, framework="pt") as handle:
        return {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a saved state, companions included."""
    found = read_tensors(folder / "model.safetensors")
    if (file := folder / _EXTRA).is_file():
        found |= read_tensors(file)
    return found


def save_state(
    folder: Path,
    state: RunState,
    *,
    model: PreTrainedModel,
    tokenizer: Any,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    lineage: Mapping[str, Any] | None = None,
) -> Path:
    """Write `folder/step-N` or nothing; returns its path. A full disk raises `UserError`."""
    path = folder / f"step-{state.step}"
    with _readable_disk_errors(folder), atomic_folder(path, replace=True) as temporary:
        extra = {name: value.contiguous() for name, value in weights.items() if name.startswith(COMPANIONS)}
        save_file(
            {name: value.contiguous() for name, value in weights.items() if name not in extra},
            temporary / "model.safetensors",
            metadata={"format": "pt"},
        )
        if extra:
            save_file(extra, temporary / _EXTRA)
        save_file(dict(optimizer), temporary / "optimizer.safetensors")
        model.config.save_pretrained(temporary)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        if lineage is not None:
            _write(temporary / RECORD, {"format": FORMAT, "lineage": dict(lineage)})
        files = {f.name: [f.stat().st_size, sha256(f)] for f in sorted(temporary.iterdir()) if f.is_file()}
        _write(temporary / _STATE, {"files": files, **state.to_json()})
    return path


def _write(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _readable_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors raises its own type, with the system's text inside
        limit = getattr(error, "errno", None) == errno.EFBIG or "os error 27" in str(error)
        full = limit or (isinstance(error, UserError) and "full" in error.what)
        if not full and not isinstance(error, UserError):
            raise
        what = "the disk is full while saving a checkpoint" if full else str(error)
        kept = next((path.name for path in _candidates(folder)), None)
        fix = f"{kept} is intact" if kept else "nothing was saved before"
        if full:
            again = "continue from it" if kept else "start again"
            fix += f": free some space and give the same command to {again}"
        raise UserError(what, where=folder, fix=fix) from error


def _candidates(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    found = [p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdigit() and p.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def newest(folder: Path) -> tuple[Path, RunState] | None:
    """The newest checkpoint that is whole, with its state; damaged ones are skipped with a note."""
    for path in _candidates(folder):
        try:
            return path, _verified(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            note(f"{path.name} is damaged ({error}) and is not used")
    return None


def _verified(path: Path) -> RunState:
    data = json.loads((path / _STATE).read_text(encoding="utf-8"))
    for name, (size, digest) in data.pop("files").items():
        file = path / name
        if file.stat().st_size != size or sha256(file) != digest:
            raise ValueError(f"{name} is not what was written")
    return RunState.from_json(data)


def prune(folder: Path, keep: int | None) -> None:
    """Remove all but the `keep` newest checkpoints; a kill in between leaves no half one in the list."""
    for path in _candidates(folder)[keep:] if keep else []:
        doomed = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=folder))
        path.rename(doomed / path.name)
        shutil.rmtree(doomed, ignore_errors=True)
