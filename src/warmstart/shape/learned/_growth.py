"""What every learned growth is: a module that holds the small weights and gives each large one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from warmstart.anatomy import TensorSpec
from warmstart.shape.learned._begin import Start
from warmstart.shape.reshape import Reshape


class Growth(nn.Module, ABC):
    """A map from the small model's weights, which stay what they are, to the large model's.

    Args:
        start: The growth that is not learned, where this one begins.
        state: Small weights by canonical name; they are held, not copied.
        apart: Names of those that the way holds in a shape of its own.
    """

    def __init__(
        self, start: Start, state: Mapping[str, Tensor], apart: frozenset[str] = frozenset()
    ) -> None:
        super().__init__()
        self.start, self.apart = start, apart
        self._known = frozenset(state)
        self._places = {name: f"small_{i}" for i, name in enumerate(state) if name not in apart}
        for name, place in self._places.items():
            self.register_buffer(place, state[name].detach(), persistent=False)

    def small(self, name: str) -> Tensor:
        """A weight of the small model."""
        return self.get_buffer(self._places[name])

    @property
    def names(self) -> list[str]:
        """Canonical names of the weights that the large model has: those whose origin the small one has."""
        specs = [spec for spec in self.start.new.tensors.values() if spec.tied_to is None]
        return [spec.name for spec in specs if self.start.deep.origin(spec).name in self._known]

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """A weight of the large model, differentiable in the parameters of the growth."""

    def parts(self, name: str) -> list[nn.Parameter]:
        """The parameters of the growth that a large weight depends on; none for a constant."""
        with torch.enable_grad():
            return _leaves(self.tensor(name))

    def flops(self) -> float:
        """Floating-point operations of one pass: each weight made, made once more, and differentiated.

        Products count, as they do for the model itself; all layers cost what the first one does.
        """
        total, counted = 0.0, Counter(self.start.new.tensors[name].template for name in self.names)
        for name in self.names:
            times = counted.pop(self.start.new.tensors[name].template, 0)
            if not times:
                continue
            with torch.enable_grad(), FlopCounterMode(display=False) as counter:
                made = self.tensor(name)
                forward = counter.get_total_flops()
                if parts := _leaves(made):
                    torch.autograd.grad(made, parts, torch.ones_like(made))
            total += times * (forward + counter.get_total_flops())
        return total


def scaled(tensor: Tensor, spec: TensorSpec, surgery: Reshape) -> Tensor:
    """The tensor times the factors that a surgery has for it (see `Reshape.factors`)."""
    for place, factor in surgery.factors.get(spec.name, {}).items():
        if place is None:
            tensor = tensor * factor
            continue
        dim = next(i for i, now in enumerate(spec.factors) if now.axis is None)
        sizes = [now.size if i == dim else 1 for i, now in enumerate(spec.factors)]
        factors = tensor.new_ones(sizes)
        factors.select(dim, place).fill_(factor)
        tensor = spec.unview(spec.view(tensor) * factors)
    return tensor


def _leaves(made: Tensor) -> list[nn.Parameter]:
    """Parameters at the ends of a tensor's graph, in an order that does not change."""
    found: dict[int, nn.Parameter] = {}
    todo, seen = [made.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.setdefault(id(leaf), leaf)
        todo.extend(after for after, _ in node.next_functions)
    return list(found.values())
