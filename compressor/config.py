"""WHAT is trained: model, data, optimizer, number of epochs. The schedule says how it is compressed."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from compressor.component import Settings
from compressor.errors import did_you_mean

SCHEMES = ("default", "xavier", "kaiming")
"""The initializations by name; any other `init` is the path of a checkpoint."""


class ModelConfig(Settings):
    """A network by name. Every other key is an argument of its builder (`hidden`, `conv_relu`, ...)."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="name of a network (`compress list models`), or package.module:factory of your own")
    num_classes: int | None = Field(
        default=None, ge=1, description="number of classes, that is of logits; default: the data set's"
    )
    pretrained: bool = Field(
        default=False,
        description="true: begin with torchvision's published weights, which are downloaded; default: new weights",
    )
    output: str | int | None = Field(
        default=None,
        description="which of several outputs are the logits: a key, attribute or index, or several joined by dots;"
        " default: `logits`, `out` or the first",
    )

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments for the builder."""
        return dict(self.__pydantic_extra__ or {})


KINDS = ("crop", "flip")
"""The names of our own random changes of an image."""


def _checked(value: Any) -> Any:
    """Return a random change of images: a name, or {name: {arguments}}. Raises `ValueError` where it is neither."""
    form = "a name, or {NAME: {arguments}}"
    if not isinstance(value, (str, dict)) or (isinstance(value, dict) and len(value) != 1):
        got = f"{len(value)} names in one item" if isinstance(value, dict) else repr(value)
        raise ValueError(f"should be {form}, got {got}")
    ((name, given),) = ((value, None),) if isinstance(value, str) else value.items()
    if not isinstance(name, str) or not isinstance(given, dict | None):
        raise ValueError(f"should be {form}: {name!r} has {given!r} in place of a mapping of arguments")
    if name not in KINDS and ":" not in name and not name[:1].isupper():
        raise ValueError(
            f"there is no {name!r}: {did_you_mean(name, KINDS)} (crop, flip, a transform of torchvision.transforms.v2"
            " such as RandomRotation, or package.module:factory)"
        )
    if name in KINDS and given:
        raise ValueError(f"{name} has no arguments, got {', '.join(map(str, given))}")
    return value


_NAMES = "^(crop|flip|[A-Z].*|.*:.*)$"
Augmentation = Annotated[
    Annotated[str, Field(json_schema_extra={"pattern": _NAMES})]
    | Annotated[dict[str, dict[str, Any] | None], Field(json_schema_extra={"minProperties": 1, "maxProperties": 1})],
    BeforeValidator(_checked),
]
"""A random change of images: a name, or {name: {arguments}}."""


def named(item: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of a random change of images."""
    ((name, given),) = ((item, None),) if isinstance(item, str) else item.items()
    return name, given or {}


class DataConfig(Settings):
    """A data set, how it is split and how it is fed."""

    name: str = Field(
        description="name of a data set (`compress list datasets`), or package.module:factory of your own"
    )
    size: int | None = Field(
        default=None, ge=1, le=4096, description="images are resized to size x size pixels; default: not resized"
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="number of colour planes; 3: grey images become 3 equal planes; default: not changed"
    )
    validation: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="fraction of the training images that is held out for validation and not augmented; 0: none",
    )
    images: int | None = Field(
        default=None, ge=1, description="number of training images that are used, drawn with the seed; default: all"
    )
    batch: int = Field(default=128, ge=1, description="number of images in one optimizer step, over all processes")
    augment: list[Augmentation] = Field(
        default=[],
        description="random changes of training images, in this order: crop (shift by up to 1/8 of the side), flip"
        " (mirror), a transform of torchvision.transforms.v2, or package.module:factory; {NAME:"
        " {arguments}}; default: none",
    )
    random_erase: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that a random rectangle of a training image is set to the mean, after all other"
        " changes (torchvision's RandomErasing on the normalized image); default 0: none",
    )
    mixup_alpha: float = Field(
        default=0.0,
        ge=0,
        description="a and b of the Beta distribution with which MixUp mixes the images of a training batch and their"
        " labels; with cutmix_alpha one of both for each batch; default 0: none",
    )
    cutmix_alpha: float = Field(
        default=0.0,
        ge=0,
        description="a and b of the Beta distribution with which CutMix puts parts of other images of a training batch"
        " into each, and mixes their labels; default 0: none",
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=64,
        description="processes that decode images where a data set is too large for memory; default 0: the run's own"
        " process",
    )
    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None,
        description="mean that is subtracted, one number for each channel, of pixels in [0, 1]; default: the data"
        " set's",
    )
    std: list[Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="deviation by which pixels are divided, one number for each channel; default: the data set's",
    )


class OptimizerConfig(Settings):
    """The optimizer. A schedule's learning-rate policies start from `lr`."""

    name: Literal["sgd", "adam", "adamw"] = Field(
        default="sgd", description="update rule: sgd, adam or adamw, as in torch.optim"
    )
    lr: float = Field(
        gt=0, description="learning rate of the first step; a schedule's learning-rate policies start from it"
    )
    momentum: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="sgd: fraction of the last update that is added to the next one; default 0: none",
    )
    nesterov: bool = Field(
        default=False, description="sgd: true: momentum looks ahead (Nesterov); it needs momentum above 0"
    )
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=[0.9, 0.999],
        min_length=2,
        max_length=2,
        description="adam, adamw: decay rates of the running means of the gradient and of its square",
    )
    eps: float = Field(
        default=1e-8,
        gt=0,
        description="adam, adamw: number that is added to the root of the squared gradients' mean, against division"
        " by 0",
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="sgd, adam: gradient c*w, the penalty c/2 * sum w^2; adamw: decoupled; default 0: none",
    )
    bias_lr_scale: float = Field(
        default=1.0,
        ge=0,
        description="factor on the learning rate of biases; 2.0 as in Caffe; default 1: the same rate",
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest L2 norm of the gradient, over all parameters; default: not clipped"
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="largest number of parts in which a batch goes through the network, one after the other; default"
        " 1: at once",
    )

    @model_validator(mode="after")
    def _of_one_optimizer(self) -> Self:
        foreign = {"betas", "eps"} if self.name == "sgd" else {"momentum", "nesterov"}
        for key in sorted(foreign & self.model_fields_set):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{self.name} has no argument {key!r}: remove it")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum: set momentum above 0")
        return self


class EmaConfig(Settings):
    """Polyak averaging of weights (and batch-norm statistics): validation, best.pt and the result use the average."""

    decay: float = Field(
        gt=0, lt=1, description="weight of the past: average <- decay * average + (1 - decay) * weights, bias-corrected"
    )


class CheckpointConfig(Settings):
    """When checkpoints are written."""

    every_epochs: int = Field(
        default=1, ge=1, description="number of epochs between two checkpoints; the last epoch always has one"
    )
    every_minutes: float | None = Field(
        default=None,
        gt=0,
        description="also a checkpoint after this many minutes, within an epoch; default: at the end of epochs only",
    )
    keep: int = Field(
        default=2,
        ge=1,
        le=100,
        description="number of checkpoint files in all: checkpoint.pt, checkpoint.1.pt (the one before it), ...",
    )


class ReportConfig(Settings):
    """The report that a run leaves."""

    html: bool = Field(default=True, description="true: write report.html in the run's folder when the run ends")
    reference: str | None = Field(
        default=None,
        description="the run's folder that results are compared with; default: that of `init`, where it is a run's",
    )


class LoggingConfig(Settings):
    """The trackers of experiments that a run is written to, beside its own files. Each needs an extra."""

    tensorboard: bool = Field(default=False, description="true: event files in the folder `tensorboard` of the run")
    mlflow: bool = Field(
        default=False,
        description="true: a run of MLflow, at MLFLOW_TRACKING_URI, else in `mlruns` of the working directory",
    )
    wandb: bool = Field(
        default=False,
        description="true: a run of Weights & Biases; without a key offline, in the folder `wandb` of the run",
    )


class InitConfig(Settings):
    """The checkpoint whose weights training begins with."""

    path: str = Field(description="a checkpoint, a run's folder (its best.pt), or a file of weights of another tool")
    weights: str | None = Field(
        default=None, description="the key of the weights in the file, model_ema for instance; default: the usual ones"
    )
    keep_zeros: bool = Field(
        default=False,
        description="true: hold the weights that are zero there at zero, whatever the schedule does; default: they"
        " are trained",
    )
    head: Literal["keep", "reset"] = Field(
        default="keep",
        description="reset: the layers that make the logits begin with new random weights, for other classes; keep:"
        " with the file's",
    )
    strict: bool = Field(
        default=True,
        description="true: each tensor must fit; false: begin with the tensors that fit, and list all that are left"
        " out",
    )


def _form_of_init(value: Any) -> str:
    return "InitConfig" if isinstance(value, (dict, InitConfig)) else "str"


class Config(Settings):
    """One training configuration: a file of `configs/`."""

    extends: str | None = Field(
        default=None,
        exclude=True,
        description="a configuration that this one is merged over: a path or a bare name; default: none",
    )
    model: ModelConfig = Field(description="the network that is trained: its name and the arguments of its builder")
    data: DataConfig = Field(description="the data set, how it is split, and how it is fed")
    optimizer: OptimizerConfig = Field(
        description="the update rule, its learning rate, and what is done to the gradient"
    )
    epochs: int = Field(ge=1, le=100_000, description="number of passes over the training images")
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="seed of initial weights, split, order of images, augmentation and dropout",
    )
    init: Annotated[
        Annotated[str, Tag("str")] | Annotated[InitConfig, Tag("InitConfig")], Discriminator(_form_of_init)
    ] = Field(
        default="default",
        description="default: PyTorch's; xavier: Caffe's uniform; kaiming: N(0, 2/fan-in); else a checkpoint's path, or"
        " {path, weights, keep_zeros, head, strict}",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="fraction of the target that is spread over all classes; default 0: none"
    )
    ema: EmaConfig | None = Field(
        default=None, description="average of the weights that validation, best.pt and the result use; default: none"
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description="number format of forward passes; bf16: autocast; weights and updates are float32 in both",
    )
    channels_last: bool = Field(default=False, description="true: convolution weights in NHWC order (CUDA)")
    compile: bool = Field(default=False, description="true: torch.compile the network (CUDA)")
    test: bool = Field(
        default=True,
        description="false: the test images are not used, and no file has a figure of them; `compress eval` tests the"
        " run that validation has chosen",
    )
    test_every_epoch: bool = Field(
        default=False, description="true: also test after each epoch; results that were selected by it are labelled"
    )
    checkpoint: CheckpointConfig = Field(
        default=CheckpointConfig(), description="when checkpoints are written, and how many are kept"
    )
    best: Literal["top1", "loss", "last"] = Field(
        default="top1",
        description="what best.pt holds: highest validation top-1, lowest loss, or last epoch, from the last pruning"
        " event on",
    )
    report: ReportConfig = Field(default=ReportConfig(), description="the report of a run")
    logging: LoggingConfig = Field(default=LoggingConfig(), description="trackers of experiments; default: none")

    @model_validator(mode="after")
    def _of_test(self) -> Self:
        if self.test_every_epoch and not self.test:
            raise ValueError("test_every_epoch: true tests after each epoch, and test: false never: remove one of them")
        return self

    @property
    def own_code(self) -> dict[str, str]:
        """Return the names of the user's own code (`package.module:factory`), by key."""
        names = {"model.name": self.model.name, "data.name": self.data.name}
        names |= {f"data.augment.{number}": named(item)[0] for number, item in enumerate(self.data.augment)}
        return {key: name for key, name in names.items() if ":" in name}

    @property
    def checkpoint_path(self) -> str | None:
        """Return the path of the checkpoint whose weights training begins with; None where they are drawn."""
        if isinstance(self.init, InitConfig):
            return self.init.path
        return None if self.init in SCHEMES else self.init

    @property
    def scheme(self) -> str:
        """Return the name of the initialization."""
        return self.init if isinstance(self.init, str) and self.init in SCHEMES else "default"

    @property
    def keeps_zeros(self) -> bool:
        """Return whether the zeros of that checkpoint are held."""
        return isinstance(self.init, InitConfig) and self.init.keep_zeros

    @property
    def start(self) -> InitConfig:
        """Return how that checkpoint is read."""
        return self.init if isinstance(self.init, InitConfig) else InitConfig(path=self.init)

    def starting_from(self, path: str) -> "Config":
        """Return the same configuration with another path of that checkpoint."""
        own = self.init
        return self.model_copy(
            update={"init": own.model_copy(update={"path": path}) if isinstance(own, InitConfig) else path}
        )
