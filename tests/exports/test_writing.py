"""A file gets its name only after it was run: by formats whose files give what a test says."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.exports import Format, Model, write
from compressor.exports.format import Pass, Say

IMAGES = torch.linspace(0, 1, 36).reshape(9, 1, 2, 2)


class Fake(Format):
    """A file whose logits are a function of the network's."""

    name = "fake"
    suffix = ".fake"

    def __init__(self, gives: Callable[[Tensor], Tensor] = lambda right: right, batch: int | None = None) -> None:
        self.gives, self.batch = gives, batch
        self.sizes: list[int] = []
        self.there: list[str] = []

    @property
    def reader(self) -> str:
        return "a fake"

    def write(self, model: Model, path: Path, say: Say) -> int | None:
        path.write_text("new")
        return self.batch

    def outputs(self, model: Model, path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
        self.sizes = [len(batch) for batch in batches]
        self.there = sorted(file.name for file in path.parent.iterdir())
        assert path.read_text() == "new"
        with torch.no_grad():
            return [self.gives(model.network(batch)) for batch in batches]

    def forward(self, path: Path) -> Pass | None:
        return lambda images: images


class Noisy(nn.Module):
    """A network that gives other logits each time."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) + torch.rand(len(images), 4)


def model(network: nn.Module | None = None) -> Model:
    flat = network or nn.Flatten()
    return Model("flat", flat, (1, 2, 2), {}, lambda: flat)


def test_a_file_that_gives_the_same_logits_gets_its_name(tmp_path: Path) -> None:
    fake = Fake()
    made = write(model(), fake, tmp_path / "a.fake", IMAGES)
    assert fake.there == [".a.fake.partial"]
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.fake", "new")]
    assert (made.bytes, made.images, made.batches) == (3, 9, [1, 2, 3, 3])
    assert made.batches == fake.sizes
    assert made.largest_difference == made.relative_difference == 0
    assert made.latency is not None
    assert [(one.stage, one.batch) for one in made.latency.timings] == [
        ("torch", 1),
        ("a fake", 1),
        ("torch", 16),
        ("a fake", 16),
    ]


def test_one_that_takes_one_image_at_a_time_is_run_so(tmp_path: Path) -> None:
    fake = Fake(batch=1)
    made = write(model(), fake, tmp_path / "a.fake", IMAGES)
    assert fake.sizes == [1] * 9
    assert made.batch == 1
    assert made.latency is not None
    assert {one.batch for one in made.latency.timings} == {1}


def test_the_difference_is_a_fraction_of_the_logits_spread(tmp_path: Path) -> None:
    # Each image's logits are k, k + 1/35, k + 2/35, k + 3/35: 5 / 4 (1/35)^2 is the mean square around their mean.
    spread = (5 / 4) ** 0.5 / 35
    off = torch.tensor([0.0, 0.0, 0.9e-4 * spread, 0.0])
    made = write(model(), Fake(lambda right: right + off), tmp_path / "a.fake", IMAGES)
    assert made.relative_difference == pytest.approx(0.9e-4, rel=1e-2)
    assert made.largest_difference == pytest.approx(0.9e-4 * spread, rel=1e-2)
    with pytest.raises(CompressError, match=r"a logit differs by 3\.\d+e-06 on 9 real images, more than 0\.0001"):
        write(model(), Fake(lambda right: right + 1.1 * off / 0.9), tmp_path / "a.fake", IMAGES)


WRONG: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "other logits": (lambda right: right + torch.tensor([0.0, 0.0, 0.0, 0.1]), "a logit differs by 0.1 "),
    "no numbers": (lambda right: right * torch.nan, "a logit differs by nan"),
    "fewer classes": (lambda right: right[:, :3], r"gives logits of shape \[3, 3\], torch \[3, 4\]"),
}


@pytest.mark.parametrize(("gives", "said"), WRONG.values(), ids=WRONG)
def test_where_the_logits_differ_no_file_is_left_and_an_older_one_is_unchanged(
    tmp_path: Path, gives: Callable[[Tensor], Tensor], said: str
) -> None:
    with pytest.raises(CompressError, match=said) as error:
        write(model(), Fake(gives), tmp_path / "a.fake", IMAGES)
    assert error.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.fake").write_text("old")
    with pytest.raises(CompressError):
        write(model(), Fake(gives), tmp_path / "a.fake", IMAGES)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.fake", "old")]


def test_what_cannot_be_compared_is_refused_and_why_is_said(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="the network itself gives other logits each time"):
        write(model(Noisy()), Fake(), tmp_path / "a.fake", IMAGES)
    with pytest.raises(CompressError, match="own logits are not finite"):
        write(model(), Fake(), tmp_path / "a.fake", IMAGES / 0)
    assert list(tmp_path.iterdir()) == []
