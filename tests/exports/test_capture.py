"""The graph of a forward pass: any number of images, or one at a time with a message; nothing on the terminal."""

import sys
import warnings

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.exports.capture import captured, quiet
from compressor.exports.format import Model

X = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Own(nn.Module):
    """A network that computes as a test says, and prints."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        print("forward")
        flat = images.flatten(1)
        if self.kind == "constant":
            flat = flat.view(int(images.shape[0]), 4)
        if self.kind == "values" and flat.sum() > 0:
            flat = -flat
        if self.kind == "numpy":
            flat = torch.from_numpy(flat.numpy())
        logits: Tensor = self.fc(flat)
        return logits


def model(kind: str) -> Model:
    network = Own(kind).eval()
    return Model("own", network, (1, 2, 2), {}, lambda: network)


@torch.no_grad()
def test_a_graph_takes_any_number_of_images_or_one_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    free, batch = captured(model("free"), said.append)
    assert (batch, said) == (None, [])
    for count in (1, 2, 5):
        assert free.module()(X[:count]).shape == (count, 3)
    fixed, batch = captured(model("constant"), said.append)
    assert batch == 1
    assert said == [
        "the file takes 1 image at a time: the model's code computes with the number of images as a constant"
    ]
    assert fixed.module()(X[:1]).shape == (1, 3)
    assert capsys.readouterr() == ("", "")


def test_a_forward_pass_that_cannot_be_followed_is_one_line_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, why in (("values", "depends on the values of a tensor"), ("numpy", r"RuntimeError: \.numpy\(\)")):
        with pytest.raises(CompressError, match=rf"the model own cannot be exported: .*{why}.*test_capture\.py:\d+\)$"):
            captured(model(kind), print)
    assert capsys.readouterr() == ("", "")


def test_inside_the_block_nothing_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print("out")
        print("err", file=sys.stderr)
        warnings.warn("warned", stacklevel=1)
    assert capsys.readouterr() == ("", "")
    with pytest.warns(UserWarning, match="after"):
        warnings.warn("after", stacklevel=1)
