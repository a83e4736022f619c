"""The forms of a network, as it is evaluated and as it is trained, of which the channels are followed."""

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from compressor.copying import copied, without_storage
from compressor.errors import UserError
from compressor.sparsity import turned_layers
from compressor.thinning.following import Fix, Followed, follow
from compressor.thinning.graph import NeedsValues, Untraceable
from compressor.thinning.labels import Labels
from compressor.tracing import python_drew, seed


class Form:
    """One form of a network, as it is evaluated or as it is trained: its forward pass, and what trial cuts mended.

    `fixes`, `high`: see `follow`.
    """

    def __init__(self, training: bool, high: bool | None = None) -> None:
        self.training, self.high = training, high
        self.drew = False
        self.fixes: dict[int, Fix] = {}
        self.found = Followed()
        self.depthwise: set[str] | None = None


def _calls(form: Form, model: nn.Module) -> Counter[tuple[str, str]]:
    """Return the layers and operations of a form, without dropout and stochastic depth."""
    drops = {path for path, module in model.named_modules() if isinstance(module, _DropoutNd)} | _OF_DROPOUT
    return Counter((node.label, node.kind) for node in form.found.nodes if node.label not in drops)


_OF_DROPOUT = frozenset({"native_dropout", "bernoulli", "empty_like", "new_empty", "mul", "div"})


class Forms:
    """A network whose forms are followed, with a label for each entry of each dim of its parameters and buffers."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        self.model, self._shape = model, shape
        self._values = dict(model.named_buffers())
        self._on_meta = True
        self.slices, self.outputs = self._numbered()

    def followed(self) -> list[Form]:
        """Return the form as it is evaluated, and as it is trained where other layers run then."""
        forms = [Form(training=False)]
        self.follow(forms[0])
        known = [_calls(forms[0], self.model)]
        for high in (False, True):  # it may draw which layers it leaves out
            trained = Form(training=True, high=high)
            self.follow(trained)
            if trained.found.failed is None and (calls := _calls(trained, self.model)) not in known:
                forms.append(trained)
                known.append(calls)
            if not trained.drew:
                break
        return forms

    def _numbered(self) -> tuple[dict[str, Labels], dict[str, Tensor]]:
        """Return a label for each entry of each dim of all parameters and buffers; and for each output of transposed
        convolutions with groups, by weight.
        """
        first, found = 0, {}
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            lines = []
            for size in tensor.shape:
                lines.append(torch.arange(first, first + size))
                first += size
            found[name] = tuple(lines)
        outputs: dict[str, Tensor] = {}
        for name, layer in turned_layers(self.model).items():
            width = int(layer.out_channels)  # type: ignore[arg-type]
            outputs[name] = torch.arange(first, first + width)
            first += width
        self.count = first
        return found, outputs

    def copy(self) -> nn.Module:
        """Return a copy of the network; without storage, if it runs so."""
        try:
            return without_storage(self.model) if self._on_meta else copied(self.model).cpu().float()
        except UserError as error:
            raise Untraceable(f"its channels cannot be traced: {error}") from error

    def run(
        self, form: Form, network: nn.Module, slices: Mapping[str, Labels], outputs: Mapping[str, Tensor]
    ) -> Followed:
        """Follow a form of `network`, a copy, with the labels of its parameters, buffers and outputs."""
        images = torch.zeros(2 if form.training else 1, *self._shape, device="meta" if self._on_meta else "cpu")
        network.train(form.training)
        values = self._values if self._on_meta else {}
        seed(form.high is True)
        found = follow(network, images, slices, form.fixes, values, form.depthwise, form.high, outputs)
        form.drew = found.drew or python_drew(form.high is True)
        return found

    def follow(self, form: Form) -> None:
        """Follow the channels of one form; raise `Untraceable` where the network cannot be run as it is evaluated."""
        form.depthwise = None
        form.found = self.run(form, self.copy(), self.slices, self.outputs)
        storage = not any(one.is_meta for one in self.model.parameters())
        if form.found.failed is not None and self._on_meta and storage and not form.training:
            self._on_meta = False  # its code asks for values
            form.found = self.run(form, self.copy(), self.slices, self.outputs)
        if form.found.failed is not None and not form.training:
            error = form.found.failed
            reason = (str(error).splitlines() or [""])[0]
            kind = Untraceable if storage else NeedsValues
            raise kind(f"its channels cannot be traced: {type(error).__name__}: {reason}") from error
        form.depthwise = {node.weight for node in form.found.nodes if node.kind == "depthwise"}
