"""`compress summary`: the layers of a network by whatever names it, and their graph."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from helpers import compress, succeed
from torch import Tensor, nn

from compressor.reports import network_as_svg, summarize

SVG = "{http://www.w3.org/2000/svg}"


class Net(nn.Module):
    """A shortcut, a layer that is called twice, one that is never called, and a product between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.again = nn.Conv2d(4, 4, 1)
        self.unused = nn.Linear(3, 2)
        self.fc = nn.Linear(4 * 36, 5)

    def forward(self, images: Tensor) -> Tensor:
        first = self.norm(self.conv(images))
        second = self.again(self.again(first).relu())
        logits: Tensor = self.fc((first + second).flatten(1))
        return logits


def test_layers_by_hand() -> None:
    """conv: 4 * 9 weights on 36 positions; again: 4 * 4 weights on 36 positions, twice; fc: 144 * 5."""
    found = summarize(Net(), (1, 6, 6), "net", trained=False)
    rows = [(one.name, one.output, one.calls, one.parameters, one.weights, one.macs) for one in found.layers]
    assert rows == [
        ("conv", [4, 6, 6], 1, 36, 36, 36 * 36),
        ("norm", [4, 6, 6], 1, 8, 0, 0),
        ("again", [4, 6, 6], 2, 20, 16, 2 * 16 * 36),
        ("fc", [5], 1, 725, 720, 720),
        ("unused", None, 0, 8, 6, 0),
    ]
    assert (found.parameters, found.trainable, found.weights) == (797, 797, 778)
    assert (found.macs, found.nonzero, found.sparsity) == (1296 + 1152 + 720, None, None)


def test_the_graph_by_hand() -> None:
    found = summarize(Net(), (1, 6, 6), "net", trained=False)
    assert [(node.name, node.reads) for node in found.nodes] == [
        ("image", []),
        ("conv", [0]),
        ("norm", [1]),
        ("again", [2]),
        ("relu", [3]),
        ("again", [4]),
        ("add", [2, 5]),
        ("fc", [6]),
        ("logits", [7]),
    ]


def test_zeros_are_counted_where_it_is_trained() -> None:
    network = Net()
    with torch.no_grad():
        network.conv.weight[:3] = 0
    found = summarize(network, (1, 6, 6), "net", trained=True)
    assert [one.nonzero for one in found.layers] == [9, 0, 16, 720, 6]
    assert (found.nonzero, found.sparsity) == (751, 1 - 751 / 778)


def test_a_network_without_storage_has_the_same_summary() -> None:
    with torch.device("meta"):
        empty = Net()
    assert summarize(empty, (1, 6, 6), "net", trained=False) == summarize(Net(), (1, 6, 6), "net", trained=False)


def test_what_works_inside_a_layer_without_parameters_is_a_row() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.transpose(1, 2)

    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(2), Product(), nn.Flatten(), nn.Linear(9, 2))
    found = summarize(network, (1, 4, 4), "net", trained=False)
    assert [(one.name, one.macs) for one in found.layers] == [
        ("0", 48),
        ("1", 0),
        ("2", 3 * 3 * 16),
        ("3", 0),
        ("4", 18),
    ]
    assert sum(one.macs for one in found.layers) == found.macs
    assert [node.reads for node in found.nodes] == [[], [0], [1], [2], [3], [4], [5]]  # two operations are one node


def test_the_picture_has_each_row_and_is_accessible() -> None:
    found = summarize(Net(), (1, 6, 6), "a <b> & c", trained=True)
    root = ElementTree.fromstring(network_as_svg(found))
    assert root.get("aria-labelledby") == "title desc"
    assert root.find(f"{SVG}title").text == "Layers of a <b> & c"  # type: ignore[union-attr]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    names = [node.name for node in found.nodes]
    assert [text for text in texts if text in names] == names
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert "norm is read by add" in titles
    assert any(str(title).startswith("conv: Conv2d, output 4x6x6; 36 parameters, 1,296 MACs") for title in titles)
    # The shortcut alone has a line beside the rows; the others go from row to row.
    assert [title for title in titles if "is read by" in str(title)] == ["norm is read by add"]
    scripts = [part.tag for part in root.iter() if "script" in part.tag]
    links = [part for part in root.iter() if any("href" in key for key in part.attrib)]
    assert (scripts, links) == ([], [])


def test_a_configuration_a_model_and_a_run_have_one_form() -> None:
    """Distiller's counts of LeNet-5: 430,500 weights, 2,293,000 MACs."""
    Path("lenet.yaml").write_text(
        "model: {name: lenet_5}\ndata: {name: mnist}\noptimizer: {name: sgd, lr: 0.1}\nepochs: 1\n"
    )
    alone = json.loads(succeed("summary", "lenet_5", "--json"))
    configured = json.loads(succeed("summary", "lenet.yaml", "--json"))
    assert alone == configured
    assert (alone["schema"], alone["weights"], alone["macs"], alone["nonzero"]) == (1, 430_500, 2_293_000, None)
    assert alone["image"] == [1, 28, 28]
    assert "2,293,000 MACs" in succeed("summary", "lenet_5")


def test_a_run_has_its_sparsity() -> None:
    succeed("train", "-s", "prune", "--out", "run", "--set", "data.images=64")
    data = json.loads(succeed("summary", "run", "--svg", "run.svg", "--json"))
    report = json.loads(succeed("report", "run", "--json", "--no-latency"))
    assert data["nonzero"] == report["totals"]["nonzero"]
    assert (data["nonzero"], data["weights"]) == (296, 1184)  # 0.75 of 64 x 16 + 16 x 10 weights are zero
    assert re.search(r"fc1 +Linear +16 +1,040 +1,024 +75.00 %", succeed("summary", "run"))
    assert Path("run.svg").read_text().startswith("<svg")


def test_arguments_and_images_of_a_model_can_be_set() -> None:
    data = json.loads(
        succeed("summary", "mlp", "--set", "model.hidden=[5]", "--set", "model.inputs=12", "--image", "3x2x2", "--json")
    )
    assert (data["image"], data["weights"]) == ([3, 2, 2], 12 * 5 + 5 * 10)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("lenet5", "there is no run, checkpoint, configuration or model 'lenet5': did you mean 'lenet_5'"),
        ("prune", "prune is a schedule, which has no network: give its configuration"),
        ("lenet_5 --image 28", "--image 28: should be CxHxW, as in 3x32x32"),
        ("lenet_5 --image 3x28x28", "does not take the images of 3x28x28"),
        ("lenet_5 --set epochs=2", "only arguments of the model are set here"),
        ("lenet_5 --svg lenet.png", "the name of an SVG file ends in .svg"),
        ("lenet_5 -c tiny", "--config is for weights of another tool"),
        ("nowhere.yaml", "nowhere.yaml"),
        ("some.module:net", "--allow-plugins"),
    ],
)
def test_wrong_input_is_exit_2_with_what_to_do(arguments: str, said: str) -> None:
    result = compress("summary", *arguments.split())
    assert (result.code, result.out) == (2, "")
    assert said in result.err
