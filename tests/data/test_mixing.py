"""Erased rectangles and mixed images: torchvision's own results, from draws that depend on their place alone."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import v2

from compressor.config import DataConfig
from compressor.data import DataFeed
from compressor.data.draws import ERASE, MIX, draw
from compressor.data.memory import in_memory
from compressor.data.mixing import Erasing, Mixing

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 2, 1, 2])


def random_images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 12, generator=torch.Generator().manual_seed(0))


def mixing(seed: int = 5, **alpha: float) -> Mixing:
    return Mixing(DataConfig(name="none", **alpha), 3, seed)  # type: ignore[arg-type]


def test_erased_rectangles_are_torchvisions_on_the_normalized_image() -> None:
    images, indices = random_images(40), torch.arange(40) * 7
    expected = []
    for image, index in zip(images, indices, strict=True):
        torch.manual_seed(int(draw(index[None], ERASE, 5, 2)[0]))
        expected.append(v2.RandomErasing(p=0.5)(image))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    found = Erasing(0.5, 5)(images.clone(), indices, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found, torch.stack(expected))
    assert 8 < sum(not torch.equal(a, b) for a, b in zip(found, images, strict=True)) < 32
    assert torch.equal(Erasing(0.5, 5)(images[3:5].clone(), indices[3:5], 2), found[3:5])  # whatever the batch


@pytest.mark.parametrize(
    ("alpha", "kinds"),
    [
        ({"mixup_alpha": 0.2}, [v2.MixUp(alpha=0.2, num_classes=3)]),
        ({"cutmix_alpha": 1.0}, [v2.CutMix(alpha=1.0, num_classes=3)]),
        (
            {"mixup_alpha": 0.4, "cutmix_alpha": 1.0},
            [v2.MixUp(alpha=0.4, num_classes=3), v2.CutMix(alpha=1.0, num_classes=3)],
        ),
    ],
)
def test_mixed_batches_are_those_of_torchvisions_reference_recipe(alpha: dict[str, float], kinds: list[Any]) -> None:
    images, chosen = random_images(), set()
    for step in range(10):
        torch.manual_seed(int(draw(torch.tensor([step]), MIX, 5, 2)[0]))
        expected = v2.RandomChoice(kinds)(images, LABELS)
        torch.manual_seed(1)
        state = torch.get_rng_state()
        found = mixing(**alpha)(images, LABELS, 2, step)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert torch.allclose(found[1].sum(1), torch.ones(4))
        chosen.add(bool(torch.isin(found[0], images).all()))  # CutMix moves pixels, MixUp makes new ones
    assert len(chosen) == len(kinds)


def test_halves_of_a_batch_are_mixed_in_the_same_proportion() -> None:
    # Two ranks: each mixes its own half, with the draws of the step.
    mix, images = mixing(mixup_alpha=1.0), random_images()
    whole = mix(images, LABELS, 1, 4)[1]
    share = whole[1, 2]  # label 2 after label 0
    halves = [mix(images[part], LABELS[part], 1, 4)[1] for part in (slice(0, 2), slice(2, 4))]
    assert halves[0].tolist() == [[share, 0, 1 - share], [1 - share, 0, share]]
    assert halves[1].tolist() == [[0, share, 1 - share], [0, 1 - share, share]]
    assert not torch.equal(mix(images, LABELS, 1, 5)[1], whole)
    assert not torch.equal(mix(images, LABELS, 2, 4)[1], whole)
    assert not torch.equal(mixing(6, mixup_alpha=1.0)(images, LABELS, 1, 4)[1], whole)


def test_a_feed_mixes_only_where_it_is_asked_for() -> None:
    pixels = torch.randint(0, 256, (4, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = in_memory("none", (pixels, LABELS), (pixels, LABELS), ("a", "b", "c"), DataConfig(name="none"))

    def feed(**config: Any) -> DataFeed:
        return DataFeed(data, DataConfig(name="none", batch=4, validation=0, **config), 5, CPU)

    ((images, labels),) = feed().train(0, 0)
    assert all(a is b for a, b in zip(feed().mixed(images, labels, 0, 0), (images, labels), strict=True))
    mixes = feed(mixup_alpha=0.2)
    ((same, _),) = mixes.train(0, 0)  # what policies look at
    assert torch.equal(same, images)
    assert mixes.mixed(images, labels, 0, 0)[1].shape == (4, 3)
    ((erased, _),) = feed(random_erase=1.0).train(0, 0)
    assert 0 < (erased != images).sum() == (erased == 0).sum()


@pytest.mark.parametrize("wrong", [{"mixup_alpha": -0.1}, {"random_erase": 1.5}, {"cutmix_alpha": "much"}])
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataConfig(name="none", **wrong)
