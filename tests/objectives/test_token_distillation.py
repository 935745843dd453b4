"""Token distillation against loops over single unpadded texts, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from objectives_taught import PHRASES, SIZE, TEXTS, batch, blocks, merged, model, objective, states

from warmstart.foundation.errors import UserError
from warmstart.objectives._parallel import collate_parallel, recut


def naive(student: Any, teacher: Any, layer: int, everywhere: bool) -> tuple[torch.Tensor, int]:
    total, count = torch.zeros((), dtype=torch.float64), 0
    for text in TEXTS:
        new, ends = merged(text)
        ours, theirs = states(student, new, layer), states(teacher, text, layer)
        seen = False
        for i, end in enumerate(ends):
            seen = seen or new[i] in PHRASES
            if seen or everywhere:
                total = total + (ours[i] - theirs[end - 1]).square().mean()
                count += 1
    return total, count


@pytest.mark.parametrize("layer", [-1, 0, 2])
@pytest.mark.parametrize("positions", ["after-phrase", "all"])
def test_equals_a_loop_over_single_texts(layer: int, positions: str) -> None:
    """Value and gradient, with padding, several new tokens per text, and a text without any."""
    student, teacher = model(tied=True), model(tied=True, seed=1)
    made = objective("token-distillation", teacher=teacher, target_layer=layer, positions=positions)
    total, count = made.loss(student, batch(made))
    expected, places = naive(student, teacher, layer, positions == "all")
    assert count.item() == places
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    (ours,) = torch.autograd.grad(total, student.get_input_embeddings().weight)
    (theirs,) = torch.autograd.grad(expected, student.get_input_embeddings().weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert student.training and all(module.training for module in student.modules())


def test_is_zero_where_both_cut_alike() -> None:
    """Exactly: the model is its own teacher, and a text without new tokens gives it nothing to learn."""
    student = model()
    everywhere = objective("token-distillation", positions="all")
    old = [[9, 3, 10, 4, 12]] * 2
    total, count = everywhere.loss(student, everywhere.collate(np.array(old), np.random.default_rng(0)))
    assert total.item() == 0.0 and count.item() == 10
    after = objective("token-distillation")
    total, count = after.loss(student, batch(after, [TEXTS[2]]))
    assert total.item() == 0.0 and count.item() == 0
    total.backward()


def test_is_zero_when_the_row_stands_for_its_pieces() -> None:
    """One layer without attention to positions: a row that gives the same state has no distance (layer 0)."""
    student = model(tied=True)
    rows = student.get_input_embeddings().weight
    with torch.no_grad():
        for token, pieces in PHRASES.items():
            rows[token] = rows[pieces[-1]]  # the embedding of the last piece is what layer 0 compares with
    made = objective("token-distillation", target_layer=0)
    total, count = made.loss(student, batch(made))
    assert total.item() == 0.0 and count.item() > 10


def test_places_before_the_new_token_only_thin_the_mean() -> None:
    student = model(tied=True)
    some, every = (objective("token-distillation", positions=p) for p in ("after-phrase", "all"))
    (one, few), (two, many) = (made.loss(student, batch(made)) for made in (some, every))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)
    assert few.item() < many.item()


def test_padding_is_known_by_length() -> None:
    """Id 0 is a token of the text and fills the padded places: both give the loss of single texts."""
    student = model(tied=True)
    made = objective("token-distillation")
    whole, count = made.loss(student, batch(made))
    parts = [made.loss(student, batch(made, [text])) for text in TEXTS]
    torch.testing.assert_close(sum(part[0] for part in parts), whole, rtol=1e-12, atol=1e-12)
    assert sum(part[1].item() for part in parts) == count.item()


def test_an_untied_head_learns_next_tokens_and_nothing_else_does() -> None:
    """Its gradient is that of the new cut's cross-entropy; input rows have that of the distance alone."""
    student = model()
    made = objective("token-distillation")
    given = batch(made)
    total, _ = made.loss(student, given)
    expected, _ = naive(student, student, -1, everywhere=False)
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    rows, head = student.get_input_embeddings().weight, student.lm_head.weight
    grad_rows, grad_head = torch.autograd.grad(total, [rows, head])
    plain = torch.zeros((), dtype=torch.float64)
    for text in TEXTS:
        new, _ = merged(text)
        logits = student.lm_head(states(student, new, -1).detach())
        plain = plain + torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(new[1:]), reduction="sum")
    torch.testing.assert_close(grad_head, torch.autograd.grad(plain, head)[0], rtol=1e-9, atol=1e-11)
    other = objective("token-distillation", teacher=model())
    student.lm_head.weight.requires_grad_(False)
    alone, _ = other.loss(student, given)
    torch.testing.assert_close(grad_rows, torch.autograd.grad(alone, rows)[0], rtol=1e-9, atol=1e-11)


def test_balanced_next_token_loss_is_as_large_as_the_distance() -> None:
    student = model(tied=True)
    plain, balanced = (objective("token-distillation", next_token_loss=kind) for kind in ("none", "balanced"))
    given = batch(plain)
    distance, count = plain.loss(student, given)
    total, same = balanced.loss(student, given)
    assert total.item() == pytest.approx(2 * distance.item(), rel=1e-12) and same.equal(count)
    rows = student.get_input_embeddings().weight
    (both,) = torch.autograd.grad(total, rows)
    (first,) = torch.autograd.grad(plain.loss(student, given)[0], rows)
    nll = torch.zeros((), dtype=torch.float64)
    for text in TEXTS:
        new, _ = merged(text)
        logits = student.lm_head(states(student, new, -1))
        nll = nll + torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(new[1:]), reduction="sum")
    # looser: transformers' norm rounds gradients to float32, here that of the sum, there each by itself
    (second,) = torch.autograd.grad(nll, rows)
    torch.testing.assert_close(both, first + distance.detach() / nll.detach() * second, rtol=1e-4, atol=1e-5)


def test_recut_marks_the_ends_of_stretches() -> None:
    """Coarser (2 to 1), finer (1 to 2), and crossing cuts that meet again."""
    ends = torch.tensor([[1, 3, 4, 0, 5, 6, 0, 9, 10, 0]])
    assert recut(ends).tolist() == [[False, True, False, False, True, False, False, True, False, False]]


def test_collated_lines_are_trimmed_and_filled() -> None:
    found = collate_parallel(blocks([[3, 4, 9], [11]]))
    assert found["teacher_ids"].tolist() == [[3, 4, 9], [11, 0, 0]]
    assert found["input_ids"].tolist() == [[20, 9], [11, 0]]
    assert found["labels"].tolist() == [[20, 9], [11, -100]]
    assert found["ends"].tolist() == [[2, 3], [1, 0]]


def test_a_model_whose_body_learns_needs_a_teacher() -> None:
    student = model()
    with pytest.raises(UserError, match="cannot be its own teacher"):
        objective("token-distillation").prepare(student, torch.device("cpu"))
    teacher = model()
    with torch.no_grad():
        teacher.lm_head.weight += 1
    student.requires_grad_(False)
    student.get_input_embeddings().weight.requires_grad_(True)
    objective("token-distillation").prepare(student, torch.device("cpu"))
    objective("token-distillation", teacher=teacher).prepare(student, torch.device("cpu"))
    own = {name: p.data_ptr() for name, p in student.named_parameters()}
    shared = {name for name, p in teacher.named_parameters() if p.data_ptr() == own[name]}
    assert shared == {n for n, _ in student.named_parameters() if "layers" in n or n == "model.norm.weight"}
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())


def test_a_layer_that_does_not_exist_is_named() -> None:
    made = objective("token-distillation", target_layer=9)
    with pytest.raises(UserError, match="no hidden state 9, the model has 4"):
        made.loss(model(size=SIZE), batch(made))
