"""Policy gradient: a model answers prompts itself, and learns from what its answers earn."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from warmstart.evaluation.rollouts import AnsweringSettings
from warmstart.foundation.errors import UserError
from warmstart.objectives._base import BatchShape, objectives
from warmstart.objectives.causal import Causal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class PolicyGradientSettings(AnsweringSettings):
    """Options of the policy gradient."""

    samples: int = Field(default=4, ge=2)
    """Answers to each prompt."""
    advantage: Literal["leave-one-out", "group"] = "leave-one-out"
    """What an answer's reward is measured against: `leave-one-out`, the mean of the other answers to its
    prompt; `group`, the mean of all, divided by their deviation."""
    kl_weight: float = Field(default=0.05, ge=0)
    """Weight of the divergence from the frozen reference, in rewards per nat; 0 does without one."""


@objectives.register(
    "policy-gradient",
    settings=PolicyGradientSettings,
    title="Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in LLMs",
    arxiv="2402.14740",
    tags=("causal",),
    skips={
        "collates-valid-batches": "a batch also holds the seeds of its answers, which are no token ids",
        "loss-is-that-of-transformers": "it learns from what its own answers earn, not from the text",
        "gradient-reaches-every-layer": "text without answers is refused, and equal rewards teach nothing",
    },
)
class PolicyGradient(Causal):
    """REINFORCE with several answers to each prompt, and a penalty on the way from the start.

        gradient of  - 1/(N S) sum_i A_i log p(y_i)  +  b/(N S) sum_i sum_t KL(p(. | y_i,<t) || p_ref)

    A prompt is what stands in front of the answer of a block (2, L) (ids; those asked for); the answer itself
    is read for its final result only. In each step the model writes S answers to each of N prompts at
    `temperature`, sees what they earn (a right final result 1, a readable one with an end `format_weight`)
    and is updated once, so that ratios of probabilities, and their clipping in PPO, play no part: PPO with
    one update per sample is REINFORCE. `advantage: leave-one-out` is RLOO; `group` are the advantages of GRPO
    (arXiv 2402.03300). Answers count as wholes: log-probabilities are summed over the tokens of an answer.
    GRPO divides by its length, by which long wrong answers cost less than short ones.

    KL is computed exactly at every place of an answer, over the whole vocabulary, not estimated from the
    token that was drawn; that the penalty also depends on which places are reached is left out of the
    gradient, as usual where it is part of the loss. RLOO puts the log-ratio into the reward instead, which is
    unbiased and noisier; GRPO's estimator "k3", used as a loss, has in expectation the gradient of
    `KL(p_ref || p)`, the other direction. All probabilities are those at `temperature`. Dropout is off, when
    answers are written and when they are learned from; checkpointing of layers, which needs training mode,
    has no effect.

    The reported loss is b KL minus the mean reward: the gradient is not its derivative.

    Random numbers come from a seed for each prompt, drawn with the batch: the answers do not depend on how
    prompts are spread over passes and processes, and a continued run writes those of an uninterrupted one.

    FLOPs are those of S blocks per prompt, forward, backward, and a forward pass each for writing and for the
    reference, rounded up to whole passes: as if every prompt with its answer filled a block.

    Args:
        settings: Options of the objective.
        tokenizer: Tokenizer of the model; its end of text ends answers.
        reference: Frozen model of the same vocabulary; by default a copy of the model as it begins.
    """

    settings: PolicyGradientSettings
    parts: ClassVar[tuple[str, ...]] = ("reference",)

    def __init__(
        self,
        settings: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        reference: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(settings, tokenizer)
        self.reference: nn.Module | None = reference
        if reference is not None:
            from warmstart.training.identity import weights_sample

            self.fingerprint = weights_sample(reference)

    def shape(self, tokens: int) -> BatchShape:
        """S times: forward and backward are a pass, and a third of one each for writing and the reference."""
        thirds = self.settings.samples * (4 + bool(self.settings.kl_weight))
        return BatchShape(tokens, passes=math.ceil(thirds / 3))

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Freeze the reference and move it to `device`; take a copy of the model where there is none.

        Raises:
            UserError: The model's parameters are sharded, so that it cannot write.
        """
        import torch

        if any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
            raise UserError("a sharded model cannot write answers", fix="set distributed: ddp")
        if not self.settings.kl_weight:
            return
        if self.reference is None or self.reference is model:
            self.reference = copy.deepcopy(model)
        torch.nn.Module.to(self.reference.eval().requires_grad_(False), device)

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """`input_ids` and `labels`, both (B, L), and `seeds` (B,)."""
        import torch

        seeds = torch.from_numpy(rng.integers(2**63, size=len(blocks), dtype="int64"))
        return {**super().collate(blocks, rng), "seeds": seeds}

    def inputs(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Arguments of the model's `forward`: ids alone."""
        return {"input_ids": batch["input_ids"]}

    def reading(self, batch: dict[str, Tensor]) -> None:
        """All positions count: what the model reads are its own answers, not the blocks."""

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """`b KL - reward`, summed over all answers, and their number.

        Raises:
            UserError: A block without a prompt, or an answer without a result.
        """
        import numpy as np
        import torch

        from warmstart.evaluation.head import unwrap
        from warmstart.evaluation.rollouts import grade, prompts_of
        from warmstart.evaluation.sampling import uniforms, write
        from warmstart.evaluation.special import end_token
        from warmstart.objectives._hidden import evaluating
        from warmstart.objectives._policy import advantages, policy_loss

        options, inner = self.settings, unwrap(model)
        rows = torch.stack([batch["input_ids"], batch["labels"]], 1).cpu().numpy()
        prompts, golds = prompts_of(rows, self.tokenizer)
        end, tokens = end_token(self.tokenizer), len(self.tokenizer)
        draws = uniforms(batch["seeds"].tolist(), options.samples, options.max_new_tokens)
        with evaluating(inner):
            answers = write(inner, prompts, draws, end=end, tokens=tokens, temperature=options.temperature)
            marks = grade(answers, golds, self.tokenizer, end, options.reward())
            rewards = torch.from_numpy(np.array([mark.reward for mark in marks]))
            better = advantages(rewards.reshape(-1, options.samples), options.advantage)
            found = policy_loss(
                inner,
                prompts,
                answers,
                better.reshape(-1).to(next(inner.parameters())),
                reference=self.reference,
                kl_weight=options.kl_weight,
                temperature=options.temperature,
                tokens=tokens,
            )
        return found - float(rewards.sum()), found.new_tensor(float(len(rewards)))
