"""He's initialization: "Delving Deep into Rectifiers" (K. He, X. Zhang, S. Ren, J. Sun, ICCV 2015)."""

from torch import nn


def he_convolutions(network: nn.Module) -> None:
    """Draw every convolution from N(0, 2 / fan_out), biases zero; linear and BN layers stay PyTorch's."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
