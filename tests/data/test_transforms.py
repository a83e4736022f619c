"""Random changes of single images: torchvision's transforms called by hand, and what they may not depend on."""

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import v2

from compressor.config import DataConfig
from compressor.data import DataFeed, DataSet, load, memory
from compressor.data.draws import TRANSFORM, draw
from compressor.data.expected import augment_misfits
from compressor.data.memory import in_memory
from compressor.data.streamed import Streamed
from compressor.data.transforms import Transforms, step
from compressor.errors import UserError
from compressor.importing import plugins_allowed

CPU = torch.device("cpu")
SHAPE = (3, 16, 16)
ROTATE: dict[str, Any] = {"RandomRotation": {"degrees": 30}}
OWN = """\
import random
import numpy as np
import torch

def spot(size):
    def change(image):
        y, x = random.randrange(8), int(np.random.randint(8))
        image = image.clone()
        image[:, y : y + size, x : x + size] = torch.randint(0, 256, (1,), dtype=torch.uint8)
        return image
    return change

def returns(what):
    return {
        "number": 3,
        "list": lambda image: [image],
        "smaller": lambda image: image[:, 1:],
        "integers": lambda image: image.long(),
        "wide": lambda image: image.float(),
        "error": lambda image: image.nothing,
    }[what]

def floats():
    def change(image):
        if image.dtype != torch.float32:
            raise TypeError("floats, please")
        return image / 2
    return change

def fails_late():
    return lambda image: image if image.sum() % 7 else image.nothing
"""


def made(count: int = 20, **config: Any) -> tuple[DataSet, DataConfig]:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=draws)
    whole = DataConfig(name="none", **{"validation": 0.0, "batch": 8, **config})
    pair = (images, torch.arange(count) % 2)
    return in_memory("none", pair, pair, ("a", "b"), whole, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)), whole


def fed(augment: list[Any], *, epoch: int = 3, first: int = 0, seed: int = 5, **config: Any) -> Tensor:
    """The training images of an epoch, in the order of their indices."""
    data, whole = made(augment=augment, **config)
    feed = DataFeed(data, whole, seed, CPU)
    return torch.cat([images for images, _ in feed.train(epoch, first)])


def test_an_image_is_torchvisions_own_from_its_own_seed() -> None:
    data, _ = made()
    items = [ROTATE, {"ColorJitter": {"brightness": 0.5}}, "RandAugment"]
    transforms = Transforms(items, SHAPE, data.mean, 5)
    by_hand = v2.Compose([v2.RandomRotation(30), v2.ColorJitter(brightness=0.5), v2.RandAugment()])
    changed = 0
    for index, image in enumerate(data.train.images[:4]):  # type: ignore[attr-defined]
        torch.manual_seed(int(draw(torch.tensor([index]), TRANSFORM, 5, 2)[0]))
        expected = by_hand(image)
        torch.manual_seed(99)
        assert torch.equal(transforms(image, index, 2), expected)
        changed += not torch.equal(expected, image)
    assert changed == 4


def test_batches_resumption_and_global_generators_change_nothing() -> None:
    augment = ["crop", ROTATE, "flip"]
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    whole = fed(augment)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # type: ignore[index]
    torch.manual_seed(2)
    assert torch.equal(fed(augment, batch=5), whole)
    assert torch.equal(fed(augment, first=1), whole[8:])
    for other in ({"epoch": 4}, {"seed": 6}):
        assert fed(augment, **other).shape == whole.shape  # type: ignore[arg-type]
        assert not torch.equal(fed(augment, **other), whole)  # type: ignore[arg-type]


def test_crop_and_flip_are_what_they_were() -> None:
    plain = fed(["crop", "flip"])
    data, config = made(augment=["crop", "flip"])
    assert DataFeed(data, config, 5, CPU)._transforms is None
    # At the end they change the normalized batch as always; before others they change bytes, and the mean is rounded.
    assert torch.equal(fed(["Identity", "crop", "flip"]), plain)
    before = fed(["crop", "flip", "Identity"])
    assert float((before - plain).abs().max()) <= 0.5 / 255 / 0.2 + 1e-6
    assert not torch.equal(before, plain)
    assert torch.equal(fed(["flip", "Identity", "flip", "Identity"]), fed(["flip"]))  # one draw, once


def test_the_order_is_that_of_the_list() -> None:
    one, other = {"RandomPosterize": {"bits": 1, "p": 1.0}}, {"RandomInvert": {"p": 1.0}}
    (bits, inverted) = (Transforms(items, SHAPE, (0.5,) * 3, 0) for items in ([one, other], [other, one]))
    image = torch.full(SHAPE, 200, dtype=torch.uint8)
    # 200 has 128 as its highest bit, inverted it is 127; 255 - 200 = 55 has no bit of 128.
    assert bits(image, 0, 0).unique().tolist() == [127]
    assert inverted(image, 0, 0).unique().tolist() == [0]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_from_disk_with_and_without_workers_as_from_memory(
    folders: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folders(size=(16, 16), train={"cat": 5, "dog": 4}, test={"cat": 1, "dog": 1})
    augment = ["crop", {"ColorJitter": {"contrast": 0.5}}, ROTATE, "flip"]

    def epoch(workers: int) -> Tensor:
        config = DataConfig(name="imagefolder", size=16, batch=2, validation=0, workers=workers, augment=augment)
        data = load(config, root, 0)
        assert isinstance(data.train, Streamed) == (workers >= 0 and memory.LIMIT == 0)
        feed = DataFeed(data, config.model_copy(update={"workers": 0}), 0, CPU)
        held = torch.cat([images for images, _ in feed.test()])
        assert held.shape == (2, 3, 16, 16)
        return torch.cat([images for images, _ in feed.train(1, 0)])

    expected = epoch(0)
    monkeypatch.setattr(memory, "LIMIT", 0)
    for workers in (0, 3):
        assert torch.equal(epoch(workers), expected)


def test_they_can_be_sent_to_other_processes() -> None:
    image = torch.randint(0, 256, SHAPE, dtype=torch.uint8)
    transforms = Transforms(["crop", ROTATE], SHAPE, (0.5,) * 3, 0)
    assert torch.equal(pickle.loads(pickle.dumps(transforms))(image, 3, 1), transforms(image, 3, 1))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"RandomRotation": {"degree": 3}}, "RandomRotation has no argument 'degree': did you mean 'degrees'?"),
        ({"RandomRotation": {"degrees": -3}}, "RandomRotation: If degrees is a single number, it must be positive."),
        ("RandomRotation", "RandomRotation.__init__() missing 1 required positional argument: 'degrees'"),
        ("RandomRotatoin", "torchvision.transforms.v2 has no 'RandomRotatoin': did you mean 'RandomRotation'"),
        ("InterpolationMode", "torchvision.transforms.v2 has no 'InterpolationMode'"),
        ({"AutoAugment": {"policy": "cifar"}}, "AutoAugment policy: no 'cifar': did you mean 'cifar10'?"),
        ({"MixUp": {"num_classes": 10}}, "MixUp mixes images and their labels: set data.mixup_alpha"),
        ("Normalize", "Normalize is not needed: set data.mean and data.std"),
        ("FiveCrop", "FiveCrop makes several images of one"),
        ("SanitizeBoundingBoxes", "SanitizeBoundingBoxes changes bounding boxes"),
        ({"Resize": {"size": 8}}, "Resize makes 3x8x8 of an image of 3x16x16: the shape (C, H, W) must stay"),
        ("Grayscale", "Grayscale makes 1x16x16 of an image of 3x16x16"),
        ({"RandomErasing": {"value": "random"}}, "RandomErasing: images are bytes here"),
        ({"RandomApply": {"transforms": ["crop"]}}, "crop stands in the list itself, not inside RandomApply"),
    ],
)  # fmt: skip
def test_what_is_refused(item: Any, said: str) -> None:
    config = DataConfig(name="none", augment=["crop", item])
    found = augment_misfits(config, SHAPE)
    assert list(found) == [1]
    assert found[1].startswith("data.augment: ")
    assert said in found[1]


@pytest.mark.parametrize(
    "item",
    [
        {"RandomApply": {"transforms": [ROTATE, "RandomInvert"], "p": 0.5}},
        {"RandomAffine": {"degrees": 5, "translate": [0.1, 0.1], "interpolation": "bilinear"}},
        {"AutoAugment": {"policy": "cifar10"}},
        {"RandomResizedCrop": {"size": 16}},
        {"GaussianNoise": {"sigma": 0.1}},
        {"RandAugment": None},
        "TrivialAugmentWide",
    ],
)
def test_what_is_taken(item: Any) -> None:
    assert augment_misfits(DataConfig(name="none", augment=[item]), SHAPE) == {}


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("cropp", "there is no 'cropp': did you mean 'crop'?"),
        ({"crop": {"size": 3}}, "crop has no arguments, got size"),
        ({"RandomInvert": {}, "RandomEqualize": {}}, "got 2 names in one item"),
        ({}, "got 0 names in one item"),
        ({"RandAugment": [2]}, "'RandAugment' has [2] in place of a mapping of arguments"),
        (3, "should be a name, or {NAME: {arguments}}, got 3"),
    ],
)
def test_forms_of_an_item(item: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataConfig(name="none", augment=[item])
    assert said in str(caught.value)
    assert len(caught.value.errors()) == 1


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_changes.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own")
def test_a_factory_of_ones_own_needs_to_be_allowed() -> None:
    item = {"own_changes:spot": {"size": 4}}
    config = DataConfig(name="none", augment=[item])
    assert "allow it with --allow-plugins" in augment_misfits(config, SHAPE)[0]
    with plugins_allowed():
        assert augment_misfits(config, SHAPE) == {}
        whole = fed([item])
        random.seed(3)
        np.random.seed(4)
        assert torch.equal(fed([item], batch=3), whole)  # it draws from three generators
        assert not torch.equal(fed([item], epoch=4), whole)
        assert "has no argument 'sise': did you mean 'size'?" in augment_misfits(
            DataConfig(name="none", augment=[{"own_changes:spot": {"sise": 4}}]), SHAPE
        )[0]  # fmt: skip


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("number", "should return a function of an image, got int"),
        ("list", "should return a tensor, got list"),
        ("smaller", "makes 3x15x16 of an image of 3x16x16"),
        ("integers", "should return bytes or floats, got torch.int64"),
        ("wide", "expected values in [0, 1]"),
        ("error", "failed on an image of 3x16x16: AttributeError: 'Tensor' object has no attribute 'nothing'"),
    ],
)
def test_what_a_factory_of_ones_own_may_not_return(what: str, said: str) -> None:
    with plugins_allowed(), pytest.raises(UserError) as caught:
        step({"own_changes:returns": {"what": what}}, SHAPE)
    assert said in str(caught.value)


@pytest.mark.usefixtures("own")
def test_one_that_takes_no_bytes_gets_floats() -> None:
    with plugins_allowed():
        transforms = Transforms(["own_changes:floats"], SHAPE, (0.5,) * 3, 0)
    assert transforms(torch.full(SHAPE, 101, dtype=torch.uint8), 0, 0).unique().tolist() == [50]  # 50.5, to even


@pytest.mark.usefixtures("own")
def test_one_that_fails_later_is_named_with_its_image() -> None:
    with plugins_allowed():
        transforms = Transforms(["own_changes:fails_late"], None, (0.5,) * 3, 0)
    with pytest.raises(UserError, match=r"own_changes:fails_late failed on training image 3 of 3x16x16"):
        transforms(torch.zeros(SHAPE, dtype=torch.uint8), 3, 0)
