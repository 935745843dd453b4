"""Training of a hypernetwork (ZeTT, arXiv 2405.07883): source rows first, then likelihood of text.

Why this is not an objective of [`train`][warmstart.training.loop.train]: what is trained is not the model
that is asked; the rows of a step belong to its whole batch, not to a block of it, so they cannot be cut into
passes; and the artifact is a network, while the loop saves the model. Data order, schedules, losses and the
storing of optimizer state are those of the loop.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from warmstart.evaluation.likelihood import max_positions
from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import progress
from warmstart.foundation.settings import digest
from warmstart.training.schedule import schedules
from warmstart.vocabulary.predictor.batches import Batch, Batches
from warmstart.vocabulary.predictor.decomposition import Pieces, SourcePieces
from warmstart.vocabulary.predictor.frozen import FrozenSource, Layout
from warmstart.vocabulary.predictor.hypernetwork import Hypernetwork, means
from warmstart.vocabulary.predictor.settings import HypernetworkSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_STATE = "state.safetensors"
_TRAIN, _VALID, _WARMUP, _MASKS = 2, 3, 4, 5  # streams of random numbers


class Trainer:
    """Trains a hypernetwork for one source.

    Warm-up: mean squared distance between predicted and true rows of random source tokens, in units of the
    mean square of a row. Main phase: mean loss of the frozen source on text cut by a sampled tokenizer, with
    predicted rows, plus `lexical_weight` times the mean over tokens that the source has of
    `||row - source row||^2 / mean ||source row||^2` (the released code divides by the mean norm, so that its
    weight depends on the scale of the rows). Special rows are copied.

    Args:
        model: Source, causal or masked, in float32; taken over and frozen.
        tokenizer: Its tokenizer.
        task: What it is asked: `causal` or `masked`.
        settings: Options.
        texts: Documents to train on.

    Raises:
        UserError: An encoder-decoder source, a block longer than its positions, no text, or none that the
            source can write.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        task: str,
        settings: HypernetworkSettings,
        texts: Sequence[str],
    ) -> None:
        if task not in ("causal", "masked"):
            raise UserError(
                f"a hypernetwork cannot be trained on a {task} model",
                where="hypernetwork",
                fix="use a causal or masked language model",
            )
        schedules.get(settings.lr_scheduler_type, where="hypernetwork")
        self.task, self.settings = task, settings
        self.pieces = SourcePieces(tokenizer)
        special = [t.id for t in self.pieces.tokens if t.role not in (None, "unused")]
        used = np.array([t.id for t in self.pieces.tokens if t.role != "unused"], dtype=np.int64)
        self.frozen = FrozenSource(model, special, used)
        self.before, self.after, self.mask = _frame(tokenizer, task)
        around = len(self.before) + len(self.after) if task == "masked" else 0
        room, needed = max_positions(model), settings.block_size + around
        if room is not None and needed > room:
            raise UserError(
                f"block_size {settings.block_size} is longer than the {room} positions of the source",
                where="hypernetwork",
                fix=f"set block_size: {settings.block_size - needed + room}",
            )
        self.batches = Batches(texts, self.pieces, settings, stream=_TRAIN)
        self.goals, self.parts = self._warmup_pairs()
        sources = self.frozen.sources
        self.network = Hypernetwork(settings, sources[0].shape[1], len(sources), seed=settings.seed)
        self.network.fit_scales([s.numpy() for s in sources], self.parts.part(0, 4096), used)
        self.squares = [float(s[torch.from_numpy(used)].square().sum(dim=1).mean()) for s in sources]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, settings.adam_beta2),
            weight_decay=settings.weight_decay,
        )
        self.step = 0
        self.curve: list[float] = []

    def _warmup_pairs(self) -> tuple[np.ndarray, Pieces]:
        """Source ids and what stands for them."""
        ids = [t.id for t in self.pieces.tokens if t.role is None]
        if self.settings.warmup_pieces == "itself":
            return np.array(ids), Pieces.of([[i] for i in ids])
        pairs = [(i, parts) for i in ids if (parts := self.pieces.apart(i))]
        if not pairs:  # no token is made up of others
            return np.array(ids), Pieces.of([[i] for i in ids])
        return np.array([i for i, _ in pairs]), Pieces.of([parts for _, parts in pairs])

    def run(self, folder: Path | None = None) -> None:
        """Take all steps that are left; with a folder, save states there and continue from the last one.

        Raises:
            UserError: The loss is not finite.
        """
        settings = self.settings
        if folder is not None:
            self._restore(folder)
        saved = time.monotonic()
        self.network.train()
        total = settings.warmup_steps + settings.max_steps
        with progress("hypernetwork", total=max(1, total)) as task:
            while self.step < total:
                warmup = self.step < settings.warmup_steps
                loss = self._warmup_loss(self.step) if warmup else self._main_loss(self.step)
                self._update(loss, warmup)
                self.curve.append(float(loss.detach()))
                self.step += 1
                task.update(self.step, f"{'rows' if warmup else 'text'}  loss {self.curve[-1]:.3f}")
                if folder is not None and time.monotonic() - saved > settings.save_seconds:
                    self.save(folder)
                    saved = time.monotonic()
        self.network.eval()

    def _update(self, loss: Tensor, warmup: bool) -> None:
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is not finite at step {self.step + 1}",
                where="hypernetwork",
                fix="lower the learning_rate" if not warmup else "lower the warmup_learning_rate",
            )
        options = self.settings
        start, count = (0, options.warmup_steps) if warmup else (options.warmup_steps, options.max_steps)
        factor = schedules.get(options.lr_scheduler_type).target(
            (self.step - start + 0.5) / count, warmup=options.warmup_ratio, decay=0.2, floor=0.0
        )
        peak = options.warmup_learning_rate if warmup else options.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = peak * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), options.max_grad_norm)
        self.optimizer.step()

    def _warmup_loss(self, number: int) -> Tensor:
        rng = np.random.default_rng([self.settings.seed, _WARMUP, number])
        count = min(self.settings.warmup_tokens, len(self.goals))
        chosen = np.sort(rng.choice(len(self.goals), count, replace=False))
        rows = self.network(self.frozen.sources, self.parts.take(chosen))
        return self._squared(rows, self.goals[chosen])

    def _squared(self, rows: Sequence[Tensor], ids: np.ndarray) -> Tensor:
        """Mean squared distance to the source rows `ids`, relative to a source row's mean square."""
        where = torch.from_numpy(ids)
        parts = [
            (row - source[where]).square().sum(dim=1).mean() / square
            for row, source, square in zip(rows, self.frozen.sources, self.squares, strict=True)
        ]
        return torch.stack(parts).mean()

    def _main_loss(self, number: int) -> Tensor:
        batch = self.batches.make(number - self.settings.warmup_steps)
        rows = self.network(self.frozen.sources, batch.pieces)
        layout, inputs, targets = self.ask(batch, [self.settings.seed, _MASKS, number])
        loss = self.frozen.loss(layout, rows, inputs, targets) / (targets != -100).sum()
        if len(batch.known) and self.settings.lexical_weight:
            where = torch.from_numpy(batch.known[:, 0])
            lexical = self._squared([row[where] for row in rows], batch.known[:, 1])
            loss = loss + self.settings.lexical_weight * lexical
        return loss

    def ask(self, batch: Batch, seed: Sequence[int]) -> tuple[Layout, dict[str, Tensor], Tensor]:
        """Inputs of the source model and its targets `(B, L)`, in the ids of the batch's own vocabulary."""
        layout = self.frozen.layout(len(batch.pieces))
        place = dict(zip(self.frozen.special, layout.special.tolist(), strict=True))
        real = batch.ids >= 0
        filler = layout.special[0] if layout.hole is None else layout.hole
        ids = np.where(real, layout.tokens[batch.ids], filler)
        targets = np.where(real, ids, -100)
        if self.task == "causal":
            first = np.full((len(ids), 1), place[self.before[-1]])
            inputs = {"input_ids": torch.from_numpy(np.concatenate([first, ids[:, :-1]], axis=1))}
            return layout, inputs, torch.from_numpy(targets)
        rng = np.random.default_rng(list(seed))
        chosen = (rng.random(ids.shape) < self.settings.mlm_probability) & real
        chosen[:, 0] |= ~chosen.any(axis=1)
        draw, other = rng.random(ids.shape), layout.tokens[rng.integers(len(layout.tokens), size=ids.shape)]
        shown = np.where(chosen & (draw < 0.8), place[self.mask], ids)
        shown = np.where(chosen & (draw >= 0.9), other, shown)
        edges = [np.tile([place[i] for i in side], (len(ids), 1)) for side in (self.before, self.after)]
        # the closing special tokens stand at the end of the block; what lies between is not looked at
        whole = np.concatenate([edges[0], shown, edges[1]], axis=1).astype(np.int64)
        seen = np.pad(real, ((0, 0), (edges[0].shape[1], edges[1].shape[1])), constant_values=True)
        asked = np.pad(
            np.where(chosen, targets, -100),
            ((0, 0), (edges[0].shape[1], edges[1].shape[1])),
            constant_values=-100,
        )
        inputs = {
            "input_ids": torch.from_numpy(whole),
            "attention_mask": torch.from_numpy(seen.astype(np.int64)),
        }
        return layout, inputs, torch.from_numpy(asked)

    def summary(self) -> dict[str, float]:
        """Mean loss of the first and last tenth of each phase."""
        cut, found = self.settings.warmup_steps, {}
        for name, losses in (("warm-up", self.curve[:cut]), ("text", self.curve[cut:])):
            if losses:
                tenth = max(1, len(losses) // 10)
                found[f"{name} loss, first"] = sum(losses[:tenth]) / tenth
                found[f"{name} loss, last"] = sum(losses[-tenth:]) / tenth
        return found

    @torch.no_grad()
    def measure(self, texts: Sequence[str]) -> dict[str, float]:
        """Bits per byte of held-out text cut by sampled tokenizers: of the hypernetwork and of piece means.

        Passages are cut at `block_size` tokens; of a masked source the bytes asked for count.
        """
        held_out = Batches(texts, self.pieces, self.settings, stream=_VALID)
        nats, size = {"hypernetwork": 0.0, "mean of pieces": 0.0}, 0
        for number in range(self.settings.eval_tokenizers):
            batch = held_out.make(number)
            layout, inputs, targets = self.ask(batch, [self.settings.seed, _MASKS + 1, number])
            sizes = np.zeros(layout.size, dtype=np.int64)
            sizes[layout.tokens] = batch.sizes
            size += int(sizes[targets[targets != -100].numpy()].sum())
            for name, make in (("hypernetwork", self.network), ("mean of pieces", means)):
                rows = make(self.frozen.sources, batch.pieces)
                nats[name] += float(self.frozen.loss(layout, rows, inputs, targets))
        return {f"bits per byte, {name}": value / math.log(2) / size for name, value in nats.items()}

    def _key(self) -> str:
        """What must be equal for a run to be continued."""
        options = self.settings.model_dump(mode="json", exclude={"save_seconds", "eval_tokenizers"})
        pool = self.batches.pool
        text = hashlib.sha256(b"\0".join(pool.words) + pool.text_words.tobytes()).hexdigest()
        return digest([options, text, self.squares])

    def save(self, folder: Path) -> None:
        """Write network, optimizer and position, whole or not at all."""
        from safetensors.torch import save

        from warmstart.foundation.files import write_atomic
        from warmstart.training.state import optimizer_tensors

        named = dict(self.network.named_parameters())
        tensors = {f"network/{k}": v.contiguous() for k, v in self.network.state_dict().items()}
        tensors |= {f"optimizer/{k}": v for k, v in optimizer_tensors(self.optimizer, named).items()}
        tensors["curve"] = torch.tensor(self.curve, dtype=torch.float64)
        write_atomic(folder / _STATE, save(tensors, metadata={"key": self._key(), "step": str(self.step)}))

    def _restore(self, folder: Path) -> None:
        from safetensors import safe_open

        from warmstart.training.state import load_optimizer, read_tensors

        file = folder / _STATE
        if not file.is_file():
            return
        with safe_open(file, framework="pt") as handle:
            described: dict[str, Any] = handle.metadata()
        if described.get("key") != self._key():
            return  # of another run: begin anew
        tensors = read_tensors(file)
        self.network.load_state_dict(
            {k.removeprefix("network/"): v for k, v in tensors.items() if k.startswith("network/")}
        )
        moments = {k.removeprefix("optimizer/"): v for k, v in tensors.items() if k.startswith("optimizer/")}
        load_optimizer(self.optimizer, dict(self.network.named_parameters()), moments)
        self.step, self.curve = int(described["step"]), tensors["curve"].tolist()


def _frame(tokenizer: PreTrainedTokenizerFast, task: str) -> tuple[list[int], list[int], int]:
    """Special tokens before and after a text, and the mask token (-1 for causal models)."""
    from warmstart.evaluation.special import mask_token, start_token, surrounding

    if task == "causal":
        return [start_token(tokenizer)], [], -1
    before, after = surrounding(tokenizer)
    return before, after, mask_token(tokenizer)
