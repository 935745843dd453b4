"""What the contract checks need of methods that apply a trained network: one for their sample source."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


class UntrainedNetwork(Mapping[str, str]):
    """The settings `{hypernetwork: folder}` of a small network, made when they are first read."""

    def __getitem__(self, key: str) -> str:
        if key != "hypernetwork":
            raise KeyError(key)
        return str(Path(_folder().name) / "network")

    def __iter__(self) -> Iterator[str]:
        return iter(("hypernetwork",))

    def __len__(self) -> int:
        return 1


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A network that corrects the mean of pieces by noise, so that its own part is checked as well."""
    import torch

    from warmstart.vocabulary._contracts import _context
    from warmstart.vocabulary.predictor.decomposition import Pieces
    from warmstart.vocabulary.predictor.hypernetwork import Hypernetwork, source_identity
    from warmstart.vocabulary.predictor.settings import NetworkSettings

    context = _context()
    network = Hypernetwork(NetworkSettings(hidden_size=8), context.rows.shape[1], 1)
    network.fit_scales([context.rows], Pieces.of([[0]]), context.vocab.source_used)
    with torch.no_grad():
        for head in network.leave:
            weight = head[-1].weight  # type: ignore[index]
            weight.copy_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    folder = tempfile.TemporaryDirectory(prefix="warmstart-checks-")
    network.save(Path(folder.name) / "network", source_identity(context.source_tokenizer, [context.rows]))
    return folder
