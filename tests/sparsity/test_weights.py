"""Which tensors can be pruned: the weights of convolutions and linear layers, and nothing else."""

from torch import nn

from compressor.sparsity.weights import prunable


def test_prunable_are_the_weights_of_convolutions_and_linear_layers_in_the_models_order() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.ConvTranspose2d(2, 2, 3),
        nn.PReLU(),
        nn.Conv1d(2, 2, 1),
        nn.Conv3d(1, 1, 1),
        nn.Embedding(3, 4),
        nn.LayerNorm(4),
        nn.Sequential(nn.Linear(4, 4, bias=False)),
    )
    found = prunable(model)
    assert list(found) == ["0.weight", "3.weight", "5.weight", "6.weight", "9.0.weight"]
    assert found["9.0.weight"] is model[9][0].weight


def test_a_layer_by_itself_is_a_model_too() -> None:
    assert list(prunable(nn.Linear(2, 2))) == ["weight"]


def test_a_tied_weight_counts_once_under_its_first_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert list(prunable(model)) == ["0.weight"]


def test_a_layer_of_ones_own_that_derives_from_a_convolution_counts() -> None:
    class Mine(nn.Conv2d):
        pass

    assert list(prunable(nn.Sequential(Mine(1, 1, 1)))) == ["0.weight"]


def test_a_model_without_such_layers_has_none() -> None:
    assert prunable(nn.BatchNorm2d(2)) == {}
