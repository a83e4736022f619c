"""The networks of one command: a factory of the user's own is called once for all of them."""

from contextlib import suppress

from torch import nn

from compressor import data
from compressor.config import Config
from compressor.copying import blank, copied, without_weights
from compressor.errors import UserError
from compressor.experiment import building
from compressor.experiment.outputs import Shape
from compressor.importing import random_state_kept
from compressor.session import rng


def needs_data(config: Config) -> bool:
    """Return whether a factory may need what only the data's files tell: the number of classes, the images' shape."""
    classes = config.model.num_classes or data.class_count(config.data.name)
    return ":" in config.model.name and not (classes and data.image_shape(config.data))


class Networks:
    """The networks that a command needs: to read names and shapes, to try out, to train, to load weights into.

    Our own and torchvision's are built again each time, those for names and shapes without storage. A factory may load
    weights, read values and take long: it is called once, and its network is copied without its weights; where it
    cannot be copied, the factory is called again. Whether storage would change what a factory makes is not known, so
    its network is always a real one.
    """

    def __init__(self, config: Config, image: Shape | None, *, pretrained: bool = False) -> None:
        """Begin with none. `image`: C, H, W of the images, as far as it is known; lazy layers get their sizes from it.
        `pretrained`: the weights of the configuration's `pretrained` are wanted.
        """
        self._config, self._image, self._pretrained = config, image, pretrained
        self.own = ":" in config.model.name
        self._made: nn.Module | None = None
        self._without_weights: nn.Module | None = None

    def skeleton(self, classes: int | None) -> nn.Module:
        """Return a network for its names and shapes, which the caller does not change; it may be without storage.

        Raises `UserError` where it cannot be built or has nothing to train.
        """
        if not self.own:
            return building.skeleton(self._config.model, classes)
        return self._without_weights or self._kept(classes)

    def for_trial(self, classes: int | None) -> nn.Module:
        """Return a network with any weights, for forward passes."""
        if not self.own:
            with random_state_kept():
                return building.model(self._config.model, classes, trained_elsewhere=True)
        kept = self._kept(classes)
        try:
            return copied(kept)
        except UserError:
            return self._build(classes)

    def to_train(self, classes: int | None) -> nn.Module:
        """Return the network with which training begins."""
        if not self.own:
            return building.model(self._config.model, classes, trained_elsewhere=not self._pretrained)
        network, self._made = self._kept(classes), None
        with suppress(UserError):
            self._without_weights = without_weights(network)
        return network

    def to_load(self, classes: int | None) -> nn.Module:
        """Return a dense network into which a checkpoint's weights are loaded."""
        if not self.own:
            return building.model(self._config.model, classes, trained_elsewhere=True)
        if self._without_weights is not None:
            return blank(self._without_weights)
        network = self._build(classes)
        try:  # a copy: a factory may give the same network, or the same layers, each time
            self._without_weights = without_weights(network)
            return blank(network)
        except UserError:
            return network

    def _kept(self, classes: int | None) -> nn.Module:
        if self._made is None:
            self._made = self._build(classes)
        return self._made

    def _build(self, classes: int | None) -> nn.Module:
        """Return the factory's network; what it draws depends on the seed alone."""
        with random_state_kept():
            rng.seed_all(self._config.seed)
            elsewhere = not self._pretrained
            return building.model(self._config.model, classes, trained_elsewhere=elsewhere, image=self._image)
