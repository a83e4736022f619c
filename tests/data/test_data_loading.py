"""What `load` does for every data set: names, overrides, checks."""

from dataclasses import replace

import pytest
import torch

from compressor.config import DataConfig
from compressor.data import DataSet, Images, catalogue, load
from compressor.data.checks import check, listed
from compressor.data.memory import InMemory
from compressor.data.registry import dataset
from compressor.errors import UserError


def test_catalogue() -> None:
    found = catalogue()
    assert {"cifar10", "cifar100", "digits", "fashion_mnist", "imagefolder", "mnist"} <= set(found)
    assert all(line and "\n" not in line for line in found.values())


def test_a_name_is_given_once() -> None:
    catalogue()
    with pytest.raises(TypeError, match="two data sets are called 'digits'"):
        dataset("digits", "another")(lambda config, root, seed: None)  # type: ignore[arg-type,return-value]


def test_unknown_name() -> None:
    with pytest.raises(UserError, match=r"no data set 'minst': did you mean 'mnist'\? .*package.module:factory"):
        load(DataConfig(name="minst"), None, 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mean": [0.1, 0.2]}, r"data.mean: expected 1 value, got 2"),
        ({"std": []}, r"data.std: expected 1 value, got 0"),
        ({"channels": 3, "std": [1.0, 2.0]}, r"data.std: expected 3 values \(one per channel\) or 1, got 2"),
    ],
)
def test_wrong_normalization(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(DataConfig(name="digits", **config), None, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [{"std": [0.0]}, {"std": [-1.0]}, {"mean": [123.7]}])
def test_a_configuration_refuses_a_normalization_that_cannot_be(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"greater than 0|less than or equal to 1"):
        DataConfig(name="digits", **config)  # type: ignore[arg-type]


def _set(train: list[int], test: list[int], classes: int = 2) -> DataSet:
    splits = [InMemory(torch.zeros(len(k), 1, 2, 2, dtype=torch.uint8), torch.tensor(k)) for k in (train, test)]
    return DataSet("some", splits[0], splits[1], tuple("abcd"[:classes]), (1, 2, 2), (0.5,), (0.5,))


def test_checks() -> None:
    good = _set([0, 1], [1])
    check(good)
    assert isinstance(good.train, Images)
    for data, message in [
        (_set([0, 2], [1]), r"some, train: labels must be 0..1 \(2 classes\), image 1 has 2"),
        (_set([0, 1], [-1]), r"some, test: labels must be 0..1 .*, image 0 has -1"),
        (_set([0, 3], [0], 4), r"some: classes 'b', 'c' without training images"),
        (replace(good, shape=(2, 2, 2)), r"1 or 3 channels, these have 2"),
        (
            replace(good, test=InMemory(torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64))),
            r"test: there are no",
        ),
        (replace(good, test=InMemory(torch.zeros(3, 1, 2, 2), torch.tensor([0]))), r"test: 3 images have 1 labels"),
        (
            replace(good, test=InMemory(torch.zeros(1, 1, 2, 2), torch.tensor([0.0]))),
            r"int64 tensor \[N\], got torch.float",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            check(data)


def test_listed() -> None:
    assert listed("class", ["a"]) == "class 'a'"
    assert listed("class", [str(k) for k in range(20)], show=2) == "classes '0', '1', ... (20 in all)"
