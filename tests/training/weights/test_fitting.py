"""Tensors of any file, put into a network: by name and shape, and nothing left out without a message."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.training import fit, load_weights

IMAGE = (1, 4, 4)


class Little(nn.Module):
    """A convolution, a batch norm and the layer that makes the logits."""

    def __init__(self, filters: int = 3, classes: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, filters, 3, bias=False)
        self.bn = nn.BatchNorm2d(filters)
        self.fc = nn.Linear(filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))
        return logits


class Around(nn.Module):
    """What a factory returns that wraps its backbone; the wrapper has nothing to train."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Little()
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.backbone(x * self.scale)
        return logits


def tensors(filters: int = 3, classes: int = 2) -> dict[str, Tensor]:
    """Numbers that are all different, under the names of `Little`."""
    state = Little(filters, classes).state_dict()
    start = 0
    for name, tensor in state.items():
        state[name] = torch.arange(start, start + tensor.numel()).reshape(tensor.shape).to(tensor.dtype)
        start += tensor.numel()
    return dict(state)


def same(network: nn.Module, wanted: dict[str, Tensor], prefix: str = "") -> bool:
    state = network.state_dict()
    return all(torch.equal(state[prefix + name], tensor) for name, tensor in wanted.items())


class Versioned(Little):
    """A network whose state dicts have versions, as torchvision's MNASNet: without one they are refused."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
        if metadata.get("version") != 2:
            raise ValueError(f"version should be 2 instead of {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize("load", [fit, lambda network, found, source: load_weights(network, {"model": found}, source)])
def test_plain_tensors_are_of_the_network_s_own_version(load: Callable[..., Any]) -> None:
    network = Versioned()
    load(network, tensors(), "f.pt")
    assert same(network, tensors())


def test_a_file_that_fits_is_loaded_without_a_word() -> None:
    network = Little()
    assert fit(network, tensors(), "f.pt") == []
    assert same(network, tensors())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net.", "anything.", "module._orig_mod.model."])
def test_a_prefix_of_all_names_is_dropped_and_named(prefix: str) -> None:
    network = Little()
    said = fit(network, {prefix + name: tensor for name, tensor in tensors().items()}, "f.pt")
    assert said == [f"f.pt: the prefix '{prefix}' of its names is left out"]
    assert same(network, tensors())


def test_what_stands_beside_the_prefix_is_named_and_left_out() -> None:
    network = Little()
    lightning = {f"model.{name}": tensor for name, tensor in tensors().items()}
    beside = {"loss.weight": torch.ones(2), "teacher.conv.weight": torch.ones(3, 1, 3, 3)}
    said = fit(network, lightning | beside, "f.ckpt")
    assert said == [
        "f.ckpt: the prefix 'model.' of its names is left out",
        "f.ckpt: 2 tensors outside are not of this model: loss.weight, teacher.conv.weight",
    ]
    assert same(network, tensors())


def test_of_two_networks_the_one_under_a_usual_prefix_is_taken_and_of_two_others_none() -> None:
    network = Little()
    average = {f"ema.{name}": tensor + 1 for name, tensor in tensors().items()}
    fit(network, average | {f"model.{name}": tensor for name, tensor in tensors().items()}, "f.pt")
    assert same(network, tensors())
    student = {f"student.{name}": tensor for name, tensor in tensors().items()}
    with pytest.raises(UserError, match=r"under 'ema\.', 'student\.': choose with .*weights: ema"):
        fit(Little(), average | student, "f.pt")


def test_a_prefix_that_only_the_network_has_is_added() -> None:
    network = Around()
    said = fit(network, tensors(), "f.pt")
    assert said == ["f.pt: its names lack the model's prefix 'backbone.', which is added"]
    assert same(network, tensors(), "backbone.")


def test_a_head_beside_the_backbone_is_found_here_and_there() -> None:
    """A network that holds its head outside of the prefix that is added; a file that holds it outside of the one that
    is dropped.
    """

    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
            self.fc = nn.Linear(3, 2)

    network, state = Apart(), {name: tensor + 1 for name, tensor in Apart().state_dict().items()}
    theirs = {name.removeprefix("body."): tensor for name, tensor in state.items()}
    assert fit(network, theirs, "f.pt") == ["f.pt: its names lack the model's prefix 'body.', which is added"]
    assert same(network, state)
    other = Little()
    theirs = {name if name.startswith("fc") else f"body.{name}": tensor for name, tensor in tensors().items()}
    assert fit(other, theirs, "f.pt") == ["f.pt: the prefix 'body.' of its names is left out"]
    assert same(other, tensors())


def test_a_file_that_has_no_head_is_refused_with_the_way_out() -> None:
    theirs = {name: tensor for name, tensor in tensors().items() if not name.startswith("fc")}
    with pytest.raises(
        UserError, match=r"missing there: fc\.weight, fc\.bias; to train for other classes .* head: reset"
    ):
        fit(Little(), theirs, "f.pt", image=IMAGE)


def test_a_name_of_any_length_costs_little() -> None:
    theirs = {name: tensor for name, tensor in tensors().items() if name != "fc.bias"}
    fit(Little(), theirs | {"." * 10**6: torch.ones(1)}, "f.pt", strict=False)


def test_a_prefix_under_which_few_names_are_found_is_none() -> None:
    theirs = {f"x.{name}": tensor for name, tensor in tensors().items() if name.startswith("fc")} | {"y": torch.ones(1)}
    with pytest.raises(UserError, match=r"unknown here: x\.fc\.weight, x\.fc\.bias, y; nothing of this file fits"):
        fit(Little(), theirs, "f.pt")


def test_a_prefix_that_the_network_has_too_stays() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Little()

    network = Net()
    said = fit(network, {f"model.net.{name}": tensor for name, tensor in tensors().items()}, "f.pt")
    assert said == ["f.pt: the prefix 'model.' of its names is left out"]
    assert same(network, tensors(), "net.")


def test_a_wrapper_inside_a_name_stays_where_two_names_would_become_one() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    theirs = {name.replace("0.0.", "0.module.0."): tensor for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError, match=r"unknown here: 0\.module\.0\.weight"):
        fit(network, theirs | {"0.0.weight": torch.ones(2, 2)}, "f.pt")


def test_only_of_checkpoints_of_compress_the_model_itself_says_why_they_do_not_fit() -> None:
    class Changed(Little):
        def why_unknown(self, names: list[str]) -> str | None:
            return "written by an earlier version" if names else None

    for architecture, said in (({}, "f.pt: written by an earlier version"), (None, "unknown here: old")):
        with pytest.raises(UserError, match=said):
            fit(Changed(), tensors() | {"old": torch.ones(1)}, "f.pt", architecture=architecture)


def test_one_prefix_takes_the_place_of_another() -> None:
    network = Around()
    said = fit(network, {f"model.{name}": tensor for name, tensor in tensors().items()}, "f.pt")
    assert len(said) == 2
    assert "'model.' of its names is left out" in said[0]
    assert same(network, tensors(), "backbone.")


def test_a_wrapper_inside_a_name_is_left_out() -> None:
    """The ImageNet example of torch wraps the features of AlexNet and VGG alone."""
    network = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1)), nn.Linear(2, 2))
    state = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    said = fit(network, {name.replace("0.0.", "0.module.0."): tensor for name, tensor in state.items()}, "f.pt")
    assert said == ["f.pt: 'module.' inside of its names is left out"]
    assert same(network, state)


def test_everything_that_does_not_fit_is_in_one_message() -> None:
    theirs = tensors()
    theirs["bn.gamma"] = theirs.pop("bn.weight")
    theirs["conv.weight"] = torch.ones(3, 1, 5, 5)
    with pytest.raises(UserError) as error:
        fit(Little(), theirs, "f.pt")
    assert str(error.value) == (
        "f.pt: the weights do not fit this model: 1 tensor does not fit: conv.weight is (3, 1, 5, 5) there,"
        " (3, 1, 3, 3) here; missing there: bn.weight; unknown here: bn.gamma; to begin with what fits, give"
        " `init: {path: f.pt, strict: false}`"
    )


def test_the_nearest_name_is_named() -> None:
    theirs = tensors()
    theirs["bn.running_vars"] = theirs.pop("bn.running_var")
    with pytest.raises(
        UserError, match=r"missing there: bn\.running_var \(bn\.running_var: perhaps bn\.running_vars\)"
    ):
        fit(Little(), theirs, "f.pt")


def test_without_strict_all_that_was_left_out_is_listed_and_the_rest_is_loaded() -> None:
    network, theirs = Little(), tensors()
    theirs["bn.gamma"] = theirs.pop("bn.weight")
    theirs["conv.weight"] = torch.ones(3, 1, 5, 5)
    assert fit(network, theirs, "f.pt", strict=False) == [
        "f.pt: strict: false: 1 tensor does not fit: conv.weight is (3, 1, 5, 5) there, (3, 1, 3, 3) here",
        "f.pt: strict: false: missing there: bn.weight",
        "f.pt: strict: false: unknown here: bn.gamma",
    ]
    assert same(
        network, {name: tensor for name, tensor in tensors().items() if name not in ("conv.weight", "bn.weight")}
    )


def test_a_file_of_which_nothing_fits_is_an_error_without_strict_too() -> None:
    with pytest.raises(UserError, match="nothing of this file fits: it is of another model"):
        fit(Little(), {"a.weight": torch.ones(3), "bn.num_batches_tracked": torch.tensor(1)}, "f.pt", strict=False)


def test_counters_and_index_buffers_may_be_missing_and_those_of_a_profiler_may_be_there() -> None:
    network, theirs = Little(), tensors()
    del theirs["bn.num_batches_tracked"]
    theirs |= {"total_ops": torch.zeros(1, dtype=torch.float64), "conv.total_params": torch.zeros(1)}
    assert fit(network, theirs, "f.pt") == [
        "f.pt: not in the file, they begin as the model makes them: bn.num_batches_tracked",
        "f.pt: not needed, left out: total_ops, conv.total_params",
    ]
    assert same(network, {name: tensor for name, tensor in theirs.items() if "total" not in name})


def test_a_buffer_that_the_network_does_not_save_is_not_needed() -> None:
    network = Around()
    theirs = {f"backbone.{name}": tensor for name, tensor in tensors().items()} | {"scale": torch.tensor(9.0)}
    assert fit(network, theirs, "f.pt") == ["f.pt: not needed, left out: scale"]
    assert network.scale == 2


def test_an_auxiliary_head_without_which_the_network_is_built_is_left_out() -> None:
    network = Little()
    network.aux = None
    assert fit(network, tensors() | {"aux.fc.weight": torch.ones(2, 2)}, "f.pt") == [
        "f.pt: not needed, left out: aux.fc.weight"
    ]
    network.shortcut = None
    with pytest.raises(UserError, match=r"unknown here: shortcut\.0\.weight"):
        fit(network, tensors() | {"shortcut.0.weight": torch.ones(2, 2)}, "f.pt")


def test_floats_are_converted_and_integers_are_not_taken_for_floats() -> None:
    network = Little()
    half = {name: tensor.half() for name, tensor in tensors().items()}
    assert fit(network, half, "f.pt") == ["f.pt: converted: float16 to float32, float16 to int64"]
    assert same(network, tensors())
    with pytest.raises(UserError, match=r"fc\.bias is int8 there, float32 here"):
        fit(Little(), tensors() | {"fc.bias": torch.ones(2, dtype=torch.int8)}, "f.pt")
    with pytest.raises(UserError, match=r"bn\.num_batches_tracked is float32 there, int64 here"):
        fit(Little(), tensors() | {"bn.num_batches_tracked": torch.tensor(0.5)}, "f.pt")
    with pytest.raises(UserError, match=r"fc\.bias is no dense tensor of real numbers"):
        fit(Little(), tensors() | {"fc.bias": torch.ones(2, dtype=torch.complex64)}, "f.pt")


@pytest.mark.parametrize(
    ("name", "shape", "note"),
    [
        ("fc.weight", (2, 3, 1, 1), r"\(a 1x1 convolution there, a linear layer here\)"),
        ("fc.weight", (3, 2), r"\(the same sizes in another order, as TensorFlow and Keras store them\?\)"),
        ("conv.weight", (3, 3, 1, 3), r"\(the same sizes in another order, as TensorFlow and Keras store them\?\)"),
    ],
)
def test_the_message_says_what_a_shape_suggests(name: str, shape: tuple[int, ...], note: str) -> None:
    for image in (None, IMAGE):
        with pytest.raises(UserError, match=note):
            fit(Little(), tensors() | {name: torch.ones(shape)}, "f.pt", image=image)


def test_a_tied_weight_may_stand_once_in_the_file_or_twice_with_equal_values() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

    network, value = Tied(), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert fit(network, {"b.weight": value}, "f.pt") == []
    assert torch.equal(network.a.weight, value)
    assert fit(network, {"a.weight": value, "b.weight": value + 0}, "f.pt") == []
    with pytest.raises(UserError, match=r"b\.weight and a\.weight are one tensor here, two different ones there"):
        fit(network, {"a.weight": value, "b.weight": value + 1}, "f.pt")


def test_another_number_of_classes_is_refused_with_the_way_out() -> None:
    with pytest.raises(UserError) as error:
        fit(Little(classes=5), tensors(), "f.pt", image=IMAGE)
    assert str(error.value) == (
        "f.pt: the weights do not fit this model: 2 tensors do not fit: fc.weight is (2, 3) there, (5, 3) here,"
        " fc.bias is (2,) there, (5,) here; to train for other classes than those of the file, give"
        " `init: {path: f.pt, head: reset}`"
    )


@pytest.mark.parametrize("classes", [1, 5, 2])
def test_head_reset_leaves_the_layer_that_makes_the_logits(classes: int) -> None:
    """Also where its shape would fit: that is what was asked for."""
    network = Little(classes=classes)
    drawn = network.fc.weight.detach().clone()
    said = fit(network, tensors(), "f.pt", head="reset", image=IMAGE)
    assert said == [
        f"f.pt: head: reset: new random weights: fc.weight ((2, 3) there, ({classes}, 3) here),"
        f" fc.bias ((2,) there, ({classes},) here)"
    ]
    assert torch.equal(network.fc.weight, drawn)
    assert same(network, {name: tensor for name, tensor in tensors().items() if not name.startswith("fc")})


def test_head_reset_finds_the_head_by_the_forward_pass_and_not_by_its_place() -> None:
    class HeadFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(4, 3), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(torch.relu(self.body(x.flatten(1))))
            return logits

    network, other = HeadFirst(), {"body.weight": torch.ones(4, 16), "body.bias": torch.ones(4)}
    fit(network, other, "f.pt", head="reset", image=IMAGE)  # a file without any head
    assert same(network, other)


def test_head_reset_covers_auxiliary_heads_of_the_same_classes() -> None:
    class Auxiliary(Little):
        def __init__(self, classes: int) -> None:
            super().__init__(classes=classes)
            self.extra = nn.Linear(3, classes)

    network = Auxiliary(5)
    theirs = tensors() | {"extra.weight": torch.ones(2, 3), "extra.bias": torch.ones(2)}
    said = fit(network, theirs, "f.pt", head="reset", image=IMAGE)
    assert "extra.weight ((2, 3) there, (5, 3) here)" in said[0]


def test_older_names_of_modules_are_translated_by_the_modules_themselves() -> None:
    torchvision = pytest.importorskip("torchvision")
    block = torchvision.models.vision_transformer.MLPBlock(2, 3, 0.0)
    state = {name: tensor + 1 for name, tensor in block.state_dict().items()}
    old = {name.replace("0.", "linear_1.").replace("3.", "linear_2."): tensor for name, tensor in state.items()}
    assert fit(block, old, "f.pt") == []
    assert same(block, state)


def test_a_counter_with_one_dim_is_read_as_a_number() -> None:
    network = Little()
    assert fit(network, tensors() | {"bn.num_batches_tracked": torch.tensor([7])}, "f.pt") == []
    assert int(network.bn.num_batches_tracked) == 7


def test_a_checkpoint_of_a_run_is_loaded_strictly() -> None:
    theirs = tensors()
    del theirs["bn.num_batches_tracked"]
    with pytest.raises(UserError, match=r"bn\.num_batches_tracked is missing there"):
        load_weights(Little(), {"model": theirs}, "f.pt")
    with pytest.raises(UserError, match="total_ops is unknown here"):
        load_weights(Little(), {"model": tensors() | {"total_ops": torch.ones(1)}}, "f.pt")


def masked(values: Tensor, mask: Tensor) -> dict[str, Tensor]:
    theirs = tensors()
    del theirs["fc.weight"]
    return theirs | {"fc.weight_orig": values, "fc.weight_mask": mask}


def test_the_masks_of_torchs_own_pruning_are_applied() -> None:
    network = Little()
    values, mask = torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    said = fit(network, masked(values, mask), "f.pt")
    assert said == ["f.pt: 1 tensor is multiplied by the masks of torch.nn.utils.prune: fc.weight"]
    assert network.fc.weight.tolist() == [[1, 0, 3], [0, 5, 0]]


@pytest.mark.parametrize(
    ("length", "direction"),
    [("fc.weight_g", "fc.weight_v"), ("fc.parametrizations.weight.original0", "fc.parametrizations.weight.original1")],
)
def test_the_parts_of_weight_norm_are_multiplied(length: str, direction: str) -> None:
    """Lengths 10 and 26 of the directions (3, 0, 4) and (5, 12, 0), whose norms are 5 and 13."""
    network, theirs = Little(), tensors()
    del theirs["fc.weight"]
    theirs[length], theirs[direction] = torch.tensor([[10.0], [26]]), torch.tensor([[3.0, 0, 4], [5, 12, 0]])
    assert fit(network, theirs, "f.pt") == ["f.pt: 1 tensor is computed from the parts of weight norm: fc.weight"]
    assert network.fc.weight.tolist() == [[6, 0, 8], [10, 24, 0]]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"fc.weight_orig": (2, 3), "fc.weight_u": (2,), "fc.weight_v": (3,)},
            r"fc\.weight is computed by spectral_norm",
        ),
        ({"fc.parametrizations.weight.original": (2, 3)}, r"remove_parametrizations\(network\.fc, NAME\)"),
        ({"fc.weight_orig": (2, 3), "fc.weight_mask": (3, 3)}, r"fc\.weight_orig is \(2, 3\), its mask \(3, 3\)"),
        ({"fc.weight_g": (3, 1), "fc.weight_v": (2, 3)}, r"the parts of fc\.weight do not fit"),
    ],
)
def test_other_parts_of_weights_are_refused_by_name(parts: dict[str, tuple[int, ...]], said: str) -> None:
    theirs = {name: torch.ones(shape) for name, shape in parts.items()}
    with pytest.raises(UserError, match=said):
        fit(Little(), tensors() | theirs, "f.pt")


def test_the_parts_of_a_network_that_computes_its_weights_itself_stay_parts() -> None:
    make: Callable[[], nn.Module] = lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))  # noqa: E731
    state = {name: tensor + 1 for name, tensor in make().state_dict().items()}
    network = make()
    assert fit(network, state, "f.pt") == []
    assert same(network, state)
