"""Which of several outputs of a network are the logits."""

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.models.output import Output, as_built, logits_of, with_output

MAIN, AUX, MAP = torch.zeros(2, 10), torch.ones(2, 10), torch.zeros(2, 8, 4, 4)
Pair = namedtuple("Pair", "aux logits")
Other = namedtuple("Other", "first second")


@dataclass
class Fields:
    loss: Tensor | None
    out: Tensor


class Named(OrderedDict[str, Tensor]):
    """As Hugging Face's: a dict with its keys as attributes."""

    @property
    def best(self) -> Tensor:
        return self["scores"]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ((MAIN, AUX), None),
        ([MAIN, AUX], None),
        ([AUX, MAIN], 1),
        ([AUX, AUX, MAIN], -1),
        ([AUX, MAIN], "1"),
        (((MAIN, AUX), MAP), None),
        (Pair(AUX, MAIN), None),
        (Pair(MAIN, AUX), 0),
        (Other(MAIN, AUX), None),
        ({"aux": AUX, "logits": MAIN, "out": AUX}, None),
        ({"aux": AUX, "out": MAIN}, None),
        ({"anything": MAIN}, None),
        ({"features": MAP, "scores": MAIN}, None),
        ({"out": AUX, "scores": MAIN}, "scores"),
        ({"heads": {"a.b": MAIN, "c": AUX}}, "heads.0"),
        ({"heads": [{"c": MAIN}]}, "heads.0.c"),
        ({"a.b": MAIN, "a": AUX}, "a.b"),
        ({1: MAIN, 0: AUX}, 1),
        (Fields(None, MAIN), None),
        (Fields(AUX, MAIN), "out"),
        (Named(scores=MAIN, more=AUX), "best"),
        (SimpleNamespace(aux=AUX, logits=MAIN), None),
    ],
)
def test_the_logits_are_found(given: Any, key: str | int | None) -> None:
    assert logits_of(given, key) is MAIN


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        ({"a": MAIN, "b": AUX}, None, "a dict of 2 (a: 2x10, b: 2x10): choose the logits by `model.output: KEY`"),
        ({"scores": MAIN, "out": AUX}, "score", "there is no 'score': did you mean 'scores'?"),
        ([MAIN, AUX], 2, "it gives a list of 2 (2x10, 2x10), there is no 2: there are: 0, 1"),
        ({"heads": {"main": MAIN}}, "heads.mian", "there is no 'mian': did you mean 'main'?"),
        ((None, MAIN), None, "a tuple of 2 (NoneType, 2x10): choose the logits"),
        ("no", None, "it gives a str: a classifier gives a tensor of logits"),
        (None, None, "it gives a NoneType"),
        ((), None, "it gives a tuple"),
    ],
)
def test_what_there_is_is_said(given: Any, key: str | int | None, said: str) -> None:
    with pytest.raises(UserError) as caught:
        logits_of(given, key)
    assert said in str(caught.value)


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.aux = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return {"aux": self.aux(x), "main": self.fc(x)} if self.training else self.fc(x)


def test_every_call_gives_logits_and_the_network_can_be_had_as_it_was() -> None:
    images = torch.rand(2, 4)
    plain = Both()
    network = with_output(copy.deepcopy(plain), "main")
    again = copy.deepcopy(network)
    for one in (network, again):
        for mode in (True, False):
            assert torch.equal(one.train(mode)(images), plain.fc(images))
    assert list(network.state_dict()) == list(plain.state_dict())
    assert set(as_built(again).train()(images)) == {"aux", "main"}


def test_the_other_outputs_give_no_gradient() -> None:
    network = with_output(Both(), "main")
    torch.autograd.backward(network(torch.rand(2, 4)).sum())
    assert network.fc.weight.grad is not None
    assert network.aux.weight.grad is None


def test_other_names_in_the_other_mode() -> None:
    hook = Output("main")
    assert hook(nn.Identity(), (), {"main": MAIN, "aux": AUX}) is MAIN
    assert hook(nn.Identity(), (), {"pred": MAIN}) is MAIN
    with pytest.raises(UserError, match="there is no 'main'"):
        hook(nn.Identity(), (), {"a": MAIN, "b": AUX})


def test_no_choice_is_asked_for_where_none_are_logits() -> None:
    with pytest.raises(UserError, match="none are logits"):
        logits_of({"loss": torch.zeros(()), "loss_aux": torch.zeros(())}, None)
