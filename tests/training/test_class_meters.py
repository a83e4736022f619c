"""Accuracy by class, and the expected calibration error against the formula of the paper, image by image."""

import numpy as np
import pytest
import torch

from compressor.training.class_meters import ClassMeters
from compressor.training.meters import Meters

CPU = torch.device("cpu")


def test_classes_and_bins_by_hand() -> None:
    # Two classes: a logit difference of ln(p / (1 - p)) is the probability p of the first.
    probabilities = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.58, 0.42])
    labels = torch.tensor([0, 0, 0, 1, 1, 0])
    logits = torch.stack([probabilities.log(), (1 - probabilities).log()], 1)
    meters = ClassMeters(CPU, ["cat", "dog", "no image of it"][:2])
    meters.add(logits, labels)
    found = meters.evaluation()
    assert found is not None
    assert [(one.name, one.images, one.correct) for one in found.classes] == [("cat", 4, 3), ("dog", 2, 0)]
    assert (found.images, found.top1) == (6, 50.0)
    # Bins of 1/15: 0.58 (twice, both wrong) is in the ninth, (8/15, 9/15]; 0.9 (three of four right) in the 14th.
    bins = {place: one for place, one in enumerate(found.calibration.bins) if one.images}
    assert set(bins) == {8, 13}
    assert (bins[8].images, bins[8].accuracy, bins[13].images, bins[13].accuracy) == (2, 0.0, 4, 0.75)
    assert bins[8].confidence == pytest.approx(0.58)
    assert bins[13].confidence == pytest.approx(0.9)
    assert found.calibration.error == pytest.approx(2 / 6 * 0.58 + 4 / 6 * 0.15)
    assert found.calibration.bins[0].model_dump() == {"confidence": None, "accuracy": None, "images": 0}


def test_of_many_images_in_batches_the_error_is_that_of_the_formula() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200, 7, generator=draws)
    labels = torch.randint(0, 7, (200,), generator=draws)
    meters, plain = ClassMeters(CPU, list("abcdefg")), Meters(CPU)
    for part in (slice(0, 70), slice(70, 200)):
        meters.add(logits[part], labels[part])
        plain.add(logits[part], labels[part])
    found = meters.evaluation()
    assert found is not None
    assert meters.means() == plain.means() == {"loss": found.loss, "top1": found.top1, "top5": found.top5}

    values = logits.double().numpy()
    softmax = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    confidence, chosen = softmax.max(1), softmax.argmax(1)
    right = chosen == labels.numpy()
    error = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            error += inside.sum() / 200 * abs(right[inside].mean() - confidence[inside].mean())
    assert found.calibration.error == pytest.approx(error, abs=1e-12)
    for number, one in enumerate(found.classes):
        own = labels.numpy() == number
        assert (one.images, one.correct) == (own.sum(), (own & right).sum())


def test_a_network_that_gives_no_numbers_has_a_loss_of_none_and_bins() -> None:
    meters = ClassMeters(CPU, ["a", "b"])
    meters.add(torch.full((3, 2), float("nan")), torch.tensor([0, 1, 1]))
    found = meters.evaluation()
    assert found is not None
    assert found.calibration.bins[0].images == 3


def test_without_images_there_is_nothing() -> None:
    assert ClassMeters(CPU, ["a"]).evaluation() is None
