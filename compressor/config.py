"""WHAT is trained: model, data, optimizer, length. The schedule says how it is compressed."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from compressor.component import Settings


class ModelConfig(Settings):
    """A network by name; every further key is an argument of its builder (`hidden`, `conv_relu`, ...)."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="`compress list models`, or package.module:factory")
    num_classes: int | None = Field(default=None, ge=1, description="default: the data set's")
    pretrained: bool = Field(default=False, description="torchvision's published weights")

    @property
    def arguments(self) -> dict[str, Any]:
        """The builder's own arguments."""
        return dict(self.__pydantic_extra__ or {})


class DataConfig(Settings):
    """A data set, how it is split and how it is fed."""

    name: str = Field(description="`compress list datasets`, or package.module:factory")
    size: int | None = Field(
        default=None, ge=1, le=4096, description="images are resized to size x size; default: as they are"
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="grey images become 3 equal planes; default: as they are"
    )
    validation: float = Field(
        default=0.1, ge=0, lt=1, description="share of the training images held out, un-augmented"
    )
    images: int | None = Field(
        default=None, ge=1, description="only so many training images are used, drawn by the seed; default: all"
    )
    batch: int = Field(default=128, ge=1, description="images of one optimizer step")
    augment: list[Literal["crop", "flip"]] = Field(
        default=[], description="random shift by up to 1/8 of the side; mirror"
    )
    workers: int = Field(
        default=0, ge=0, le=64, description="processes that decode images of sets too large for memory"
    )
    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None, description="per channel, of pixels in [0, 1]; default: the data set's"
    )
    std: list[Annotated[float, Field(gt=0)]] | None = Field(
        default=None, description="per channel; default: the data set's"
    )


class OptimizerConfig(Settings):
    """The optimizer; a schedule's lr policies start from `lr`."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(gt=0, description="the rate that a schedule's lr policies start from")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="sgd")
    nesterov: bool = Field(default=False, description="sgd")
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=[0.9, 0.999], min_length=2, max_length=2, description="adam, adamw"
    )
    eps: float = Field(default=1e-8, gt=0, description="adam, adamw")
    weight_decay: float = Field(
        default=0.0, ge=0, description="sgd, adam: gradient c*w, the penalty c/2 * sum w^2; adamw: decoupled"
    )
    bias_lr_scale: float = Field(default=1.0, ge=0, description="Caffe trains biases at twice the rate: 2.0")
    clip_norm: float | None = Field(default=None, gt=0, description="the gradient's L2 norm over all parameters")
    accumulate: int = Field(default=1, ge=1, description="parts in which a batch goes through the network, one by one")

    @model_validator(mode="after")
    def _of_one_optimizer(self) -> Self:
        foreign = {"betas", "eps"} if self.name == "sgd" else {"momentum", "nesterov"}
        for key in sorted(foreign & self.model_fields_set):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{self.name} takes no {key!r}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class EmaConfig(Settings):
    """Polyak averaging of weights (and batch-norm statistics): validation, best.pt and the result use the average."""

    decay: float = Field(gt=0, lt=1, description="average <- decay * average + (1 - decay) * weights, bias-corrected")


class CheckpointConfig(Settings):
    """When the run is saved."""

    every_epochs: int = Field(default=1, ge=1, description="after every so many epochs")
    every_minutes: float | None = Field(default=None, gt=0, description="in mid-epoch, too")


class Config(Settings):
    """One training configuration: a file of `configs/`."""

    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    epochs: int = Field(ge=1, le=100_000, description="passes over the training images")
    seed: int = Field(default=0, ge=0, lt=2**31, description="of weights, split, order, augmentation and dropout")
    init: str = Field(
        default="default",
        description="default: PyTorch's; xavier: Caffe's uniform; kaiming: N(0, 2/fan-in); else a checkpoint's path",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target spread over all classes")
    ema: EmaConfig | None = None
    precision: Literal["float32", "bf16"] = Field(default="float32", description="bf16: autocast in forward passes")
    channels_last: bool = Field(default=False, description="convolution weights in NHWC order (CUDA)")
    compile: bool = Field(default=False, description="torch.compile the network (CUDA)")
    test_every_epoch: bool = Field(
        default=False, description="also test after each epoch; figures selected by it are labelled as such"
    )
    checkpoint: CheckpointConfig = CheckpointConfig()
    best: Literal["top1", "loss", "last"] = Field(
        default="top1",
        description="best.pt: highest validation top-1, lowest loss, or last, from the last pruning event on",
    )
