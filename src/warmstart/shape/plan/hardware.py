"""What a device can do: data sheets (`hardware.yaml`), or this machine as measured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml
from pydantic import Field, model_validator

from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings

MEASURED = ("cpu", "here")
"""Names of what is measured when it is asked for, not looked up."""


class Hardware(Settings):
    """One kind of device and the machine that it stands in."""

    title: str
    """What it is called."""
    memory_gb: float = Field(gt=0)
    """Memory per device in 10^9 bytes."""
    bfloat16: float = Field(gt=0)
    """Dense peak in bfloat16 (float16 where there is none), 10^12 operations per second."""
    float32: float = Field(gt=0)
    """Peak in float32, 10^12 operations per second."""
    bandwidth: float = Field(gt=0)
    """Memory bandwidth in 10^9 bytes per second."""
    link: float = Field(gt=0)
    """Bytes per second (10^9) that a device sends to others in its node."""
    network: float = Field(gt=0)
    """Bytes per second (10^9) that a device sends to other nodes, its share of the node's network."""
    devices_per_node: int = Field(ge=1)
    """Devices that share a node."""

    def peak(self, type: str) -> float:
        """Operations per second in the torch type `type`."""
        return 1e12 * (self.bfloat16 if type == "bfloat16" else self.float32)


class HardwareSettings(Settings):
    """A device by name, with numbers to change. A plain word is short for `name`."""

    name: str = "here"
    """`here` (this machine, measured), `cpu` (its processor), or a name such as `a100-80gb`."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory per device in 10^9 bytes, instead of the table's."""
    tflops: float | None = Field(default=None, gt=0)
    """Peak in the type that matrix products run in, 10^12 operations per second, instead of the table's."""
    link: float | None = Field(default=None, gt=0)
    """Bytes per second (10^9) between devices of a node, instead of the table's."""
    network: float | None = Field(default=None, gt=0)
    """Bytes per second (10^9) and device between nodes, instead of the table's."""
    devices_per_node: int | None = Field(default=None, ge=1)
    """Devices per node, instead of the table's."""

    @model_validator(mode="before")
    @classmethod
    def _word(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    def resolve(self) -> Hardware:
        """The device with the changed numbers; an unknown name raises `UserError`."""
        found = hardware_of(self.name)
        changes: dict[str, Any] = {
            key: value
            for key in ("memory_gb", "link", "network", "devices_per_node")
            if (value := getattr(self, key)) is not None
        }
        if self.tflops is not None:
            changes |= {"bfloat16": self.tflops, "float32": self.tflops}
        return found.model_copy(update=changes)


@cache
def hardware_table() -> Mapping[str, Hardware]:
    """Every device of the table by name."""
    text = resources.files(__package__).joinpath("hardware.yaml").read_text(encoding="utf-8")
    return {name: Hardware.parse(row, where=name) for name, row in yaml.safe_load(text).items()}


def hardware_of(name: str) -> Hardware:
    """The device called `name`; `here` and `cpu` are measured (about a second)."""
    if name in MEASURED:
        return measured(name)
    known = hardware_table()
    if name not in known:
        raise UserError(f"unknown hardware {name!r}", fix=nearest(name, [*known, *MEASURED]))
    return known[name]


@cache
def measured(name: str = "here") -> Hardware:
    """This machine: its GPUs where torch sees any, else its processor with all its memory.

    Peaks are the best rates of matrix products here. What is not measured is taken to be modest: memory of
    GPUs at 800 GB/s, links as PCIe 4.0 (32 GB/s), a network of 10 Gbit/s; a processor is one device whose
    memory carries 20 GB/s, as one DDR4 channel does.
    """
    import psutil
    import torch

    from warmstart.evaluation.machine import machine

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and name == "cpu":
        raise UserError("this machine has a GPU, which is what would be measured", fix="use hardware: here")
    found = machine(measure_peak=True)
    peaks = {kind: rate / 1000 for kind, rate in found["peak_gflops"].items()}
    if gpus:
        memory = torch.cuda.get_device_properties(0).total_memory
        return Hardware(
            title=f"{found['gpus'][0]}, measured",
            memory_gb=memory / 1e9,
            bandwidth=800,
            link=32,
            network=1.25,
            devices_per_node=gpus,
            **peaks,
        )
    return Hardware(
        title=f"{found['processor']}, {found['threads']} threads, measured",
        memory_gb=psutil.virtual_memory().total / 1e9,
        bandwidth=20,
        link=20,
        network=1.25,
        devices_per_node=1,
        **peaks,
    )
