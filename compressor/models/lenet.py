"""LeNet-5 as Caffe ships it, after "Gradient-Based Learning Applied to Document Recognition".

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Proceedings of the IEEE 86(11), 1998. Caffe's net is larger than
the paper's (20 and 50 maps, 500 hidden units) and is what the pruning literature calls LeNet-5.
"""

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.registry import model


class LeNet5(nn.Module):
    """conv 20@5x5, pool, conv 50@5x5, pool, fc 500, fc; for images of 28x28."""

    def __init__(self, num_classes: int, in_channels: int, conv_relu: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.relu1 = nn.ReLU() if conv_relu else nn.Identity()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.relu2 = nn.ReLU() if conv_relu else nn.Identity()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, in_channels, 28, 28) images."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        logits: Tensor = self.fc2(self.relu3(self.fc1(torch.flatten(x, 1))))
        return logits


@model
def lenet_5(num_classes: Size = 10, in_channels: Size = 1, conv_relu: bool = False) -> LeNet5:
    """LeNet-5-Caffe (LeCun et al. 1998) for 28x28; as in Caffe only fc1 has a ReLU, unless `conv_relu`."""
    return LeNet5(num_classes, in_channels, conv_relu)
