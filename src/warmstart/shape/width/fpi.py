"""bert2BERT's function-preserving initialisation: entries repeated at random."""

from __future__ import annotations

import numpy as np

from warmstart.foundation.settings import Settings
from warmstart.shape.maps import copies
from warmstart.shape.width import Widening, WidthContext, widths
from warmstart.shape.width._norms import count_under_norms, split_last_norm


@widths.register("fpi", title="bert2BERT: Towards Reusable Pretrained Language Models", arxiv="2110.07143")
def fpi(settings: Settings, context: WidthContext) -> Widening:
    """Every new entry copies an old one drawn at random, and consumers are divided by the number of copies.

    `g(i) = i` for `i <= d_s`, else uniform; `U~[:, i] = W[:, g(i)] / c_g(i)`, `U[i, :] = U~[g(i), :]`, c
    being how often an entry occurs. One g per axis group: the residual stream has one, each MLP and each
    attention its own; heads are copied whole.

    The name promises more than it keeps: repeating some entries of the hidden axis more often than others
    changes the mean and the mean square that norms divide by, so the function is kept exactly only if the
    hidden size stays, or all counts are equal (a multiple; see the way `exact`). A tied head is not divided;
    here the gain of the last norm is, which the source does not say. There is no official code; a public
    port draws a g for each block of a layer and so breaks the residual stream.
    """
    result = Widening()
    for item in context.resized:
        drawn = context.rng.integers(0, item.size, item.group.size - item.size)
        result.maps[item.group.name] = copies(np.concatenate([np.arange(item.size), drawn]))
        if item.letter == "H":
            split_last_norm(context, result)
        if item.letter in ("e", "d"):
            result.inexact.append("entries of heads are copied, so their scores change")
        else:
            count_under_norms(context, result, item)
    return result
