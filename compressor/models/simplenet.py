"""Distiller's small nets, after LeNet-5 of "Gradient-Based Learning Applied to Document Recognition".

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Proceedings of the IEEE 86(11), 1998; module names as in Distiller
(N. Zmora et al., 2019, arXiv:1910.12232), so that its schedules bind.
"""

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.lenet import LeNet5
from compressor.models.registry import model


class SimplenetCifar(nn.Module):
    """conv 6@5x5, pool, conv 16@5x5, pool, fc 120, fc 84, fc; for colour images of 32x32."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.relu_conv1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.relu_conv2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.relu_fc1 = nn.ReLU()
        self.fc2 = nn.Linear(120, 84)
        self.relu_fc2 = nn.ReLU()
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 3, 32, 32) images."""
        x = self.pool1(self.relu_conv1(self.conv1(x)))
        x = self.pool2(self.relu_conv2(self.conv2(x)))
        x = self.relu_fc1(self.fc1(torch.flatten(x, 1)))
        logits: Tensor = self.fc3(self.relu_fc2(self.fc2(x)))
        return logits


class SimplenetV2(nn.Module):
    """conv 20@5x5, pool, conv 50@5x5, pool, average pooling, fc; for grey images of 28x28."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.avgpool = nn.AvgPool2d(4)
        self.fc = nn.Linear(50, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 1, 28, 28) images."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


@model
def simplenet_cifar(num_classes: Size = 10) -> SimplenetCifar:
    """Distiller's simplenet for CIFAR: two convolutions, three linear layers, 62,006 parameters."""
    return SimplenetCifar(num_classes)


@model
def simplenet_mnist(num_classes: Size = 10) -> LeNet5:
    """Distiller's simplenet for MNIST: LeNet-5-Caffe with a ReLU after each convolution."""
    return LeNet5(num_classes, in_channels=1, conv_relu=True)


@model
def simplenet_v2_mnist(num_classes: Size = 10) -> SimplenetV2:
    """Distiller's second simplenet for MNIST: one small linear layer in place of two, 26,080 parameters."""
    return SimplenetV2(num_classes)
