"""What a criterion needs is provided, or it is a fault that says so before anything is trained."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from compressor.component import REGISTRY
from compressor.criteria import ActivationCriterion, Criterion, Given
from compressor.schedule.registry import components
from compressor.sparsity.structures import Structure

RunOf = Callable[..., Any]

X = torch.tensor([[1.0, 2], [3, -1], [0.5, 0.5]])
LABELS = torch.tensor([0, 1, 1])
BATCHES = [(X[:1], LABELS[:1]), (X[1:], LABELS[1:])]


@pytest.fixture(autouse=True)
def own() -> Iterator[None]:
    """Criteria of these tests are forgotten at their end."""
    before = dict(components("criteria"))
    yield
    REGISTRY["criteria"].clear()
    REGISTRY["criteria"].update(before)


def text(criterion: str, more: str = "") -> str:
    component = f"class: Pruner, weights: 0.weight, structure: Rows, criterion: {criterion}, rate: {{sparsity: 0.4}}"
    return f"version: 2\npolicies:\n  - {{pruner: {{{component}{more}}}, epochs: [0, 1]}}\n"


def net() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_((torch.arange(parameter.numel()) % 5 - 1.7 + 0.1 * number).reshape(parameter.shape))
    return model


def seen(run_of: RunOf, criterion: str, epochs: int = 1, **options: Any) -> Any:
    """A run that has begun."""
    model = net()
    run = run_of(text(criterion), model, batches=BATCHES, **options)
    for epoch in range(epochs - 1):
        run.epoch(epoch)
    run.begin(epochs - 1)
    return run


def test_a_need_that_nobody_provides_is_a_fault_that_names_it_and_lists_what_is_provided(
    faults_of: Callable[[str], list[str]],
) -> None:
    class Curvature(Criterion, name="curvature"):
        """w^2 d2L/dw2."""

        needs: ClassVar[frozenset[str]] = frozenset({"weights", "hessian"})

    (fault,) = faults_of(text("curvature"))
    assert fault.startswith("s.yaml:3:")
    assert (
        "curvature needs hessian: provided are weights, gradient, gradient_sums, activation_sums, running_statistics,"
        " batch_norms, optimizer_state"
    ) in fault


def test_sums_of_activations_are_for_criteria_that_say_what_is_summed(faults_of: Callable[[str], list[str]]) -> None:
    class Nothing(Criterion, name="nothing"):
        """Sums nothing."""

        needs: ClassVar[frozenset[str]] = frozenset({"activation_sums"})

    (fault,) = faults_of(text("nothing"))
    assert "nothing needs sums of activations: its class should be an ActivationCriterion" in fault


def test_what_is_summed_is_the_criterion_s_own(run_of: RunOf) -> None:
    class MeanSquare(ActivationCriterion, name="mean_square"):
        """The mean square behind the activation."""

        def summed(self, maps: Tensor, gradient: Tensor | None) -> Tensor:
            return maps.square().mean(2)

    run = seen(run_of, "mean_square")
    activations = torch.relu(net()[0](X)).detach()
    keep = run.masks.keep("0.weight").any(1)
    assert (~keep).nonzero().flatten().tolist() == [int(activations.square().mean(0).argmin())]


def test_gradients_are_of_one_batch_or_of_all(run_of: RunOf) -> None:
    class Both(Criterion, name="both"):
        """Look at both."""

        needs: ClassVar[frozenset[str]] = frozenset({"gradient", "gradient_sums"})

        def score(self, given: Given, name: str, structure: Structure) -> Tensor:
            found.extend([given.gradient(name), given.gradient_sums(name)])
            return structure.norms(given.weights[name])

    found: list[Tensor] = []
    seen(run_of, "both")
    for gradient, count in zip(found, (1, 3), strict=True):
        model = net()
        nn.functional.cross_entropy(model(X[:count]), LABELS[:count]).backward()
        torch.testing.assert_close(gradient, model[0].weight.grad)


def test_the_optimizer_s_state_is_what_it_holds(run_of: RunOf) -> None:
    class Momentum(Criterion, name="momentum"):
        """|momentum|, and before the first step |w|."""

        needs: ClassVar[frozenset[str]] = frozenset({"weights", "optimizer_state"})

        def score(self, given: Given, name: str, structure: Structure) -> Tensor:
            state = given.optimizer_state(name)
            held.append(set(state))
            return structure.norms(state.get("momentum_buffer", given.weights[name]))

    held: list[set[str]] = []
    seen(run_of, "momentum", epochs=2, momentum=0.9)
    assert held == [set(), {"momentum_buffer"}]


@pytest.mark.parametrize("criterion", ["l1", "max", "random", "bn_scale", "gradient", "apoz", "running_feature_map"])
def test_without_a_run_only_the_weights_are_there(criterion: str) -> None:
    one = components("criteria")[criterion]()
    assert isinstance(one, Criterion)
    structure = components("structures")["Rows"]()
    assert isinstance(structure, Structure)
    given = Given({"w": torch.ones(3, 2)}, criterion)
    if one.needs == {"weights"}:
        assert one.score(given, "w", structure).shape == (3,)
        return
    with pytest.raises(LookupError, match=f"no images to take {criterion} of w from"):
        one.score(given, "w", structure)


def test_every_criterion_says_whether_it_needs_images() -> None:
    names = {name for name, cls in components("criteria").items() if cls().needs_images}  # type: ignore[attr-defined]
    assert names == {"gradient", "taylor", "apoz", "mean_activation", "feature_map", "running_feature_map"}


def test_what_is_summed_is_seen_as_a_map_with_its_sides(run_of: RunOf) -> None:
    class Rank(ActivationCriterion, name="rank"):
        """The mean rank of a feature map (HRank, Lin et al. 2020)."""

        def summed(self, maps: Tensor, gradient: Tensor | None) -> Tensor:
            shapes.append(tuple(maps.shape))
            return torch.linalg.matrix_rank(maps)

    shapes: list[tuple[int, ...]] = []
    model = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    images = torch.tensor([[[[1.0, 2], [2, 4]]], [[[1.0, 0], [0, 1]]]])  # of rank 1 and 2
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1, 2]).reshape(3, 1, 1, 1))
    written = text("rank").replace("structure: Rows", "structure: Filters")
    run = run_of(written, model, batches=[(images, LABELS[:2])])
    run.begin(0)
    assert shapes[0] == (2, 3, 2, 2)
    assert run.masks.keep("0.weight").flatten().tolist() == [True, False, True]  # 1.5, 0, 1.5
