"""The report names the classes whose logits do not depend on the image."""

import json

import torch
from torch import nn

from compressor.reports import formats, measure


def test_lost_classes_are_in_the_table_and_in_the_json() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    assert measure(net, (1, 2, 2), classes=("cat", "dog", "owl")).lost_classes == []
    assert "lost" not in formats.as_table(measure(net, (1, 2, 2)))
    with torch.no_grad():
        net[1].weight[0] = 0  # the bias is left
    report = measure(net, (1, 2, 2), classes=("cat", "dog", "owl"))
    assert "lost classes, whose logits do not depend on the image: cat\n" in formats.as_table(report)
    assert json.loads(formats.as_json(report))["lost_classes"] == ["cat"]


def test_a_network_that_cannot_be_followed_says_so() -> None:
    class Counting(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(1)) if float(x.mean()) > 9 else super().forward(x.flatten(1)) * 2

    report = measure(Counting(4, 3).eval(), (1, 2, 2))
    assert report.lost_classes is None
    assert "lost classes are not known" in formats.as_table(report)
