"""Networks for the benchmarks of thinning: random weights, half of the filters pruned, logits that depend on the image.

`timm/NAME` is timm's classifier of that name (the extra `timm`), any other name one that a configuration may give.
"""

import json
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from compressor.context.data import Data
from compressor.models import build
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.grammar import read
from compressor.session.session import Session
from compressor.sparsity.weights import prunable
from compressor.thinning.layers import BATCHNORMS, CONVOLUTIONS
from compressor.timing.clock import Clock
from compressor.tracing import logits_weights, trace_on_meta

TIMM = "timm/"
FAMILIES = tuple(
    TIMM + name
    for name in (
        # residual, split and grouped
        "resnet18 resnetv2_18 seresnet18 ecaresnet26t skresnet18 gcresnet33ts resnest14d resnext50_32x4d"
        " res2net50_14w_8s regnety_002 regnetz_b16 eca_nfnet_l0 nf_resnet26 tresnet_m"
        # dense, aggregated, several branches
        " densenet121 rdnet_tiny dpn68 dla34 hrnet_w18_small cspresnet50 cspdarknet53 darknet21 ese_vovnet19b_dw"
        " vovnet39a selecsls42b xception41 inception_v4 nasnetalarge pnasnet5large"
        # inverted residual, cheap operations, several forms of one block
        " efficientnet_b0 tf_efficientnetv2_b0 mobilenetv3_small_050 mobilenetv4_conv_small_050 mixnet_s rexnet_100"
        " ghostnet_050 ghostnetv3_050 lcnet_050 repvgg_a0 mobileone_s0 repvit_m0_9 hgnetv2_b0 fasternet_t0 starnet_s1"
        # without attention, most with LayerNorm
        " convnext_atto convnextv2_atto inception_next_atto convmixer_768_32 mambaout_femto poolformer_s12"
        " mixer_s32_224 gmlp_ti16_224 resmlp_12_224"
        # attention
        " vit_tiny_patch16_224 deit3_small_patch16_224 swin_tiny_patch4_window7_224 coat_lite_tiny coatnet_pico_rw_224"
        " maxvit_rmlp_pico_rw_256 pvt_v2_b0 davit_tiny xcit_nano_12_p16_224 edgenext_xx_small mobilevit_xxs"
        " mobilevitv2_050 fastvit_t8 efficientformerv2_s0 levit_128s"
    ).split()
)
_SIDES = {
    **dict.fromkeys(
        "vit_ deit3_ swin_ coat_ coatnet_ mixer_ gmlp_ resmlp_ levit_ efficientformer maxvit_t".split(), 224
    ),
    "maxvit_rmlp_": 256,
    "inception_": 96,
}
"""Pixels of the images by how the name begins; 64 else."""


def side_of(name: str) -> int:
    """Pixels of the images that a network is tried on."""
    return next((side for begin, side in _SIDES.items() if name.removeprefix(TIMM).startswith(begin)), 64)


def new(name: str) -> nn.Module:
    """The network of this name, with random weights, biases and affines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith(TIMM):
            import timm

            network: nn.Module = timm.create_model(name.removeprefix(TIMM))
        else:
            network = build(name)
    randomize(network)
    return network


@torch.no_grad()
def randomize(network: nn.Module) -> None:
    """Biases and affines that are not 0 and 1, and weights that are not 0."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.1)
        elif (name.endswith("weight") and parameter.dim() == 1) or _is_constant(parameter):
            parameter.uniform_(0.5, 1.5)  # of a norm, or the scale of a block, which switches it off at first
        elif not bool(parameter.any()):  # the head of a vision transformer
            parameter.normal_(0, 0.02)


def _is_constant(parameter: Tensor) -> bool:
    first = parameter.flatten()[0]
    return bool(first != 0) and bool((parameter == first).all())


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> None:
    """As training would: every layer's outputs differ by about 1 between images, and batch norms know (roughly) how.

    Without this the logits of a deep random network hardly depend on the image, and their equality would prove nothing.
    """
    norms = [module for module in network.modules() if isinstance(module, BATCHNORMS)]
    layers = [module for module in network.modules() if isinstance(module, (CONVOLUTIONS, nn.Linear))]
    hooks = [layer.register_forward_hook(_rescale) for layer in layers]
    network.eval()
    for norm in norms:
        norm.train().momentum = 1.0
    network(images)
    for norm in norms:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        variance.mul_(torch.empty_like(variance).uniform_(0.7, 1.4)).add_(1e-3)
        mean.add_(0.1 * variance.sqrt() * torch.randn_like(mean))
    network.eval()
    network(images)
    for hook in hooks:
        hook.remove()


def _rescale(layer: Any, given: tuple[Any, ...], out: Tensor) -> Tensor:
    deviation = out.std(0)
    live = deviation[deviation > 0]
    if not len(live):
        return out
    layer.weight.div_(live.mean())
    return cast(Tensor, layer.forward(*given))


def prune(network: nn.Module, names: list[str], images: Tensor, sparsity: float = 0.5) -> list[str]:
    """Zero so many filters of the named weights, by a schedule; returns what it said."""
    text = (
        "{version: 2, policies: [{pruner: {class: Pruner, criterion: l1, structure: Filters, scope: coupled,"
        f" weights: {json.dumps(names)}, rate: {{sparsity: {sparsity}}}}}, epochs: [0]}}]}}"
    )
    faults = Faults()
    bound = read(parse("benchmark", text, faults), faults).bind(network, 1, faults)
    faults.raise_any()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    said: list[str] = []
    data = Data(batches=lambda count: [(images, torch.zeros(len(images), dtype=torch.long))])
    session = Session(network, optimizer, bound.policies, Clock(1, 1), data, say=said.append)
    session.events.fire("on_epoch_begin")
    return said


def masked(network: nn.Module, side: int) -> list[str]:
    """Zero half of the filters of every layer but that of the logits, and settle; returns what was said."""
    names, trace = list(prunable(network)), trace_on_meta(network, (3, side, side))
    logits = names[-1:] if trace is None else logits_weights(trace)
    said = prune(network, [name for name in names if name not in logits], torch.randn(2, 3, side, side))
    settle(network, torch.randn(8, 3, side, side))
    return said


def zero_filters(weight: Tensor) -> Tensor:
    """Which filters of a weight are all zero."""
    return (weight == 0).flatten(1).all(1)
