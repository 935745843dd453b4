"""A network that reads a token's source pieces and writes its rows (ZeTT, arXiv 2405.07883).

Legend: n tokens, P pieces per token, d width of the source, k matrices (1 when input and head are tied, else
2), h width of the network.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.mix import moments, row_norms
from warmstart.vocabulary.predictor.decomposition import Pieces
from warmstart.vocabulary.predictor.settings import NetworkSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WEIGHTS, CONFIG = "hypernetwork.safetensors", "config.json"
_PIECE_DEVIATION = 0.02


class Block(nn.Module):
    """`norm(x + gelu(W2 gelu(W1 x)))`, the residual block of the paper's code."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(width, inner), nn.Linear(inner, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, h) -> (…, h)`."""
        return self.norm(x + F.gelu(self.down(F.gelu(self.up(x)))))


class Layer(nn.Module):
    """Bidirectional transformer layer with the norms in front, over pieces without their padding."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor, real: Tensor, *, last: bool) -> Tensor:
        """New states of all N pieces, or of each token's first piece.

        Args:
            x: `(N, h)`, token by token.
            real: `(n, P)` bool, N of them true: where these pieces stand.
            last: Whether only the first pieces' states `(n, h)` are wanted.
        """
        parts = self.project(self.before(x)).view(len(x), 3, self.heads, -1)
        padded = parts.new_zeros(*real.shape, *parts.shape[1:])
        padded[real] = parts
        q, k, v = padded.permute(2, 0, 3, 1, 4)
        wanted = real[:, :1] if last else real
        seen = F.scaled_dot_product_attention(
            q[:, :, : wanted.shape[1]], k, v, attn_mask=real[:, None, None, :]
        )
        if last:
            x = x[real.sum(dim=1).cumsum(dim=0) - real.sum(dim=1)]
        x = x + self.merge(seen.transpose(1, 2).flatten(2)[wanted])
        return x + self.down(F.gelu(self.up(self.between(x))))


class Hypernetwork(nn.Module):
    """Rows of any token from the rows of its source pieces.

    Pieces `[E_s; U_s]` are rescaled per dimension to mean 0 and deviation 0.02, projected, read by a
    bidirectional transformer, and the first position gives one output per matrix:
    `row = base + alpha ||E_s|| / sqrt(d) * out`, where `base` is the mean (or the first) of the pieces' rows,
    `||E_s||` the mean norm of a source row, and the output layer starts at zero: an untrained network is the
    heuristic. With `residual: none` the output is rescaled per dimension instead, so that a fresh network's
    rows have mean and deviation of the source's rows, as in the paper.

    The paper's network has norms behind its transformer layers; here they stand in front, which needs no long
    warm-up. It can predict a head bias; here new tokens have the mean bias, in training as in use. It adds
    trained vectors for pieces that the source cannot write and for languages; here the former are left out.

    Args:
        settings: Size and kind.
        width: Width d of the source.
        matrices: 1 when input and head rows are one matrix, else 2.
        seed: Of the first weights; the global generator is left alone.
    """

    in_scale: Tensor
    in_shift: Tensor
    out_scale: Tensor
    out_shift: Tensor

    def __init__(self, settings: NetworkSettings, width: int, matrices: int, *, seed: int = 0) -> None:
        super().__init__()
        self.settings, self.width, self.matrices = settings, width, matrices
        hidden = settings.hidden_size or width
        heads = settings.num_heads or max(1, hidden // 64)
        if hidden % heads:
            raise UserError(
                f"hidden_size {hidden} is not a multiple of num_heads {heads}",
                where="hypernetwork",
                fix="choose sizes that agree",
            )
        inner = max(1, round(settings.expansion * hidden))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.enter = nn.Sequential(nn.Linear(matrices * width, hidden), Block(hidden, inner))
            self.places = nn.Parameter(0.02 * torch.randn(settings.max_pieces, hidden))
            self.layers = nn.ModuleList(Layer(hidden, heads, inner) for _ in range(settings.num_layers))
            self.leave = nn.ModuleList(
                nn.Sequential(Block(hidden, inner), nn.Linear(hidden, width)) for _ in range(matrices)
            )
        if settings.residual != "none":
            for parameter in (p for head in self.leave for p in head[-1].parameters()):  # type: ignore[index]
                nn.init.zeros_(parameter)
        for name, value in (("shift", 0.0), ("scale", 1.0)):
            self.register_buffer(f"in_{name}", torch.full((matrices * width,), value))
            self.register_buffer(f"out_{name}", torch.full((matrices, width), value))

    def fit_scales(self, sources: Sequence[np.ndarray], pieces: Pieces, reference: np.ndarray) -> None:
        """Set the fixed rescalings from the source's rows.

        Args:
            sources: Source matrices `(V, d)`, k of them.
            pieces: Some tokens, on which a fresh network's outputs are measured (`residual: none`).
            reference: Source ids that a token uses, ascending.
        """
        found = [moments(source, reference) for source in sources]
        mean, deviation = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True))
        scale = _PIECE_DEVIATION / deviation.clamp(min=1e-8)
        self.in_scale.copy_(scale)
        self.in_shift.copy_(-mean * scale)
        if self.settings.residual != "none":
            for number, source in enumerate(sources):
                norm = float(row_norms(source)[reference].mean())
                self.out_scale[number] = self.settings.alpha * norm / math.sqrt(self.width)
            return
        with torch.no_grad():
            fresh = self([torch.from_numpy(source) for source in sources], pieces)
        for number, (own, out) in enumerate(zip(found, fresh, strict=True)):
            mu, sd = (torch.from_numpy(part).to(out.dtype) for part in own)
            factor = sd / out.std(dim=0, correction=0).clamp(min=1e-8)
            self.out_scale[number] = factor
            self.out_shift[number] = mu - factor * out.mean(dim=0)

    def forward(self, sources: Sequence[Tensor], pieces: Pieces) -> list[Tensor]:
        """Rows `(n, d)` for each of the k source matrices `(V, d)`.

        Each distinct piece is projected once, and the last layer computes first pieces only.
        """
        padded, stands = pieces.padded(self.settings.max_pieces)
        distinct, where = np.unique(padded[stands], return_inverse=True)
        ids, index, place = (torch.from_numpy(a) for a in (distinct, where, stands.nonzero()[1]))
        real = torch.from_numpy(stands)
        x = torch.cat([F.embedding(ids, source) for source in sources], dim=-1)
        x = self.enter(x * self.in_scale + self.in_shift)[index] + self.places[place]
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, real, last=number == len(self.layers))
        if not self.layers:
            x = x[torch.from_numpy(np.cumsum(stands.sum(axis=1)) - stands.sum(axis=1))]
        found = [head(x) for head in self.leave]
        rows = [
            out * scale + shift
            for out, scale, shift in zip(found, self.out_scale, self.out_shift, strict=True)
        ]
        return [base + row for base, row in zip(self.bases(sources, pieces), rows, strict=True)]

    def bases(self, sources: Sequence[Tensor], pieces: Pieces) -> list[Tensor]:
        """What the network corrects, for each matrix: means, first rows, or zeros."""
        if self.settings.residual == "none":
            return [source.new_zeros(1) for source in sources]
        if self.settings.residual == "first":
            first = torch.from_numpy(pieces.flat[pieces.starts])
            return [F.embedding(first, source) for source in sources]
        return means(sources, pieces)

    @torch.no_grad()
    def rows(
        self, sources: Sequence[np.ndarray], pieces: Pieces, number: int, *, block: int = 2048
    ) -> np.ndarray:
        """Rows `(n, d)` for matrix `number`, in blocks of tokens and in the precision of the sources."""
        matrices = [torch.from_numpy(np.asarray(source)) for source in sources]
        network = self.to(matrices[0].dtype)
        out = np.empty((len(pieces), self.width), dtype=sources[0].dtype)
        for start in range(0, len(pieces), block):
            part = pieces.part(start, start + block)
            out[start : start + block] = network(matrices, part)[number].numpy()
        return out

    def save(self, folder: Path, described: dict[str, Any]) -> None:
        """Write weights and `config.json`, the latter with what is `described` besides."""
        import json

        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous().cpu() for k, v in self.state_dict().items()}, folder / WEIGHTS)
        config = {
            "network": self.settings.model_dump(mode="json", include=set(NetworkSettings.model_fields)),
            "width": self.width,
            "matrices": self.matrices,
            **described,
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> tuple[Hypernetwork, dict[str, Any]]:
        """Network and `config.json` of a folder.

        Raises:
            UserError: The folder holds no whole hypernetwork.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from warmstart.checkpoint.headers import read_json

        if not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
            raise UserError(
                "there is no hypernetwork in this folder",
                where=folder,
                fix="train one with `warmstart hypernetwork SOURCE --corpus …`",
            )
        config = read_json(folder / CONFIG)
        try:
            settings = NetworkSettings.parse(config["network"], where=folder / CONFIG)
            network = cls(settings, int(config["width"]), int(config["matrices"]))
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"the hypernetwork cannot be opened ({reason})", where=folder, fix="train it again"
            ) from error
        return network.eval(), config


def means(sources: Sequence[Tensor], pieces: Pieces) -> list[Tensor]:
    """Mean of all pieces' rows `(n, d)`, for each matrix."""
    flat, starts = (torch.from_numpy(a) for a in (pieces.flat, pieces.starts))
    return [F.embedding_bag(flat, source, starts, mode="mean") for source in sources]


def source_identity(tokenizer: PreTrainedTokenizerFast, sources: Sequence[np.ndarray]) -> dict[str, str]:
    """Fingerprints by which a hypernetwork knows its source again: tokenizer, input rows, head rows."""
    from warmstart.vocabulary.aux_space.train import tokenizer_fingerprint

    found = {"tokenizer": tokenizer_fingerprint(tokenizer)}
    return found | {name: _fingerprint(rows) for name, rows in zip(("input rows", "head rows"), sources)}


def _fingerprint(rows: np.ndarray) -> str:
    """Hash of a matrix in float32."""
    state = hashlib.sha256(str(rows.shape).encode())
    for start in range(0, len(rows), 8192):
        state.update(np.ascontiguousarray(rows[start : start + 8192], dtype=np.float32).tobytes())
    return state.hexdigest()[:32]
