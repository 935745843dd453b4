"""bert2BERT's advanced knowledge initialisation: new units from the layer above."""

from __future__ import annotations

from dataclasses import replace

from warmstart.foundation.settings import Settings
from warmstart.shape.width import Widening, WidthContext, widths
from warmstart.shape.width.fpi import fpi


@widths.register("aki", title="bert2BERT: Towards Reusable Pretrained Language Models", arxiv="2110.07143")
def aki(settings: Settings, context: WidthContext) -> Widening:
    """As `fpi`, but new heads and new units of an MLP are those of the layer above, `U_l[i] =
    U~_(l+1)[g(i)]`.

    Neighbouring layers are alike, and different units learn different things. Weights that read the new units
    stay those of their own layer, so the function is not kept. The last layer has none above and takes
    `fpi`.
    """
    result = fpi(settings, context)
    for item in context.resized:
        if item.layer is not None:
            axis = result.maps[item.group.name]
            late = axis.index != -1
            late[: item.size] = False
            result.maps[item.group.name] = replace(axis, above=late)
    result.inexact.append("new units come from the layer above")
    return result
