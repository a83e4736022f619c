"""Mixed images: the loss of the classes' weights by hand, accuracies and policies with the class of the larger one."""

from typing import Any

import pytest
import torch
from loop import Batch, Loop, random_batches, values
from torch import Tensor, nn

SMOOTHING, RATE = 0.3, 0.1
CALLS: list[tuple[int, int]] = []


def net(outputs: int = 3) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, outputs)


def mixed(images: Tensor, labels: Tensor, epoch: int, step: int) -> Batch:
    """0.7 of each image, 0.3 of the one before it; of the labels likewise."""
    CALLS.append((epoch, step))
    weights = nn.functional.one_hot(labels, 3).float()
    return 0.7 * images + 0.3 * images.roll(1, 0), 0.7 * weights + 0.3 * weights.roll(1, 0)


def run(model: nn.Module, batches: list[Batch], **config: Any) -> Loop:
    made = Loop(model, batches, optimizer={"lr": RATE, **config.pop("optimizer", {})}, **config)
    made.trainer._mixed = mixed
    return made.run()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("outputs", [3, 5])
def test_a_step_on_mixed_images_by_hand(outputs: int, accumulate: int) -> None:
    model, batches = net(outputs), random_batches([6] * 3)
    w, b = (value.double() for value in values(model).values())
    loss, hits = 0.0, 0
    CALLS.clear()
    found = run(model, batches, optimizer={"accumulate": accumulate}, label_smoothing=SMOOTHING)
    for (images, labels), ours in zip(batches, found.after, strict=True):
        one_hot = torch.eye(outputs, dtype=torch.float64)[labels]
        x, y = (0.7 * whole + 0.3 * torch.cat([whole[-1:], whole[:-1]]) for whole in (images.double(), one_hot))
        y_smooth = (1 - SMOOTHING) * y + SMOOTHING / outputs
        logits = x @ w.T + b
        loss -= float((y_smooth * logits.log_softmax(1)).sum(1).mean()) / 3
        hits += int((logits.argmax(1) == labels).sum())  # 0.7 is the larger weight
        slope = (logits.softmax(1) - y_smooth) / len(x)
        w, b = w - RATE * slope.T @ x, b - RATE * slope.sum(0)
        assert torch.allclose(ours["weight"].double(), w, atol=1e-6)
        assert torch.allclose(ours["bias"].double(), b, atol=1e-6)
    assert CALLS == [(0, 0), (0, 1), (0, 2)]
    assert found.lines[0]["train"]["loss"] == pytest.approx(loss, rel=1e-5)
    assert found.lines[0]["train"]["top1"] == pytest.approx(100 * hits / 18)


def test_policies_get_the_images_of_the_step_with_class_indices() -> None:
    batches, seen = random_batches([4]), []
    made = Loop(net(), batches)
    made.trainer._mixed = mixed
    before = made.session.before_backward

    def look(loss: Tensor, **given: Any) -> Tensor:
        seen.append(given)
        return before(loss, **given)

    made.session.before_backward = look  # type: ignore[method-assign,assignment]
    made.run()
    assert torch.equal(seen[0]["images"], mixed(*batches[0], 0, 0)[0])
    assert torch.equal(seen[0]["labels"], batches[0][1])


def test_a_run_resumed_in_mid_epoch_mixes_as_before() -> None:
    batches = random_batches([4] * 4)
    whole = run(net(), batches, epochs=2)
    CALLS.clear()
    again = Loop(net(), batches, epochs=2, optimizer={"lr": RATE})
    again.trainer._mixed = mixed
    again.resume(whole.at((1, 2)))
    assert CALLS == [(1, 2), (1, 3)]
    assert all(torch.equal(again.after[-1][name], w) for name, w in whole.after[-1].items())
