"""A session from a configuration."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.config import Config
from compressor.context import Data
from compressor.policies.policy import BoundPolicy
from compressor.session.session import Session, Settings
from compressor.timing import Clock
from compressor.world import World


class Source(Protocol):
    """A source of batches, with the numbers of images and steps."""

    steps_per_epoch: int
    images: int
    held_out: int
    pace: float

    def train(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the training batches of an epoch from `first_step` on."""


def start(
    config: Config,
    model: nn.Module,
    optimizer: Optimizer,
    policies: Sequence[BoundPolicy],
    source: Source,
    say: Callable[[str], None],
    dense: Mapping[str, Sequence[int]] | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    classes: Sequence[str] = (),
    allows_empty_layers: bool = False,
    world: World | None = None,
) -> Session:
    """Return a session over `model`. Raises `UserError` where a policy does not fit it.

    `dense` has the shapes of the parameters at the beginning of the run, where channels were removed since. `shape`: C,
    H, W of the images. `allows_empty_layers`: the run goes on where the logits no longer depend on the image. `world`:
    the processes that train together.
    """
    return Session(
        model,
        optimizer,
        policies,
        Clock(config.epochs, source.steps_per_epoch, pace=source.pace),
        Data(
            batches=lambda count: list(itertools.islice(source.train(0, 0), count)),
            images=source.images,
            held_out=source.held_out,
            shape=shape,
            classes=classes,
        ),
        world=world,
        settings=Settings(
            config.optimizer.clip_norm, config.ema.decay if config.ema else None, config.seed, allows_empty_layers
        ),
        say=say,
        dense=dense,
    )
