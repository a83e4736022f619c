"""What happens in a forward pass: which operations it has, on which tensors, and with which values.

A module for each question:

- `trace`: `trace(model, images)` records the operations and module calls of one pass as a `Trace`. Functions of a
  `Trace` are `activations.places` (the activation that follows each weight), `layer_calls.layer_calls` (the calls of
  each layer, the batch norm that follows it, the shortcut added to it), `dropout.before_dropout` (the weight before
  each dropout module), `positions.positions` (the number of positions at which each layer works) and, of `logits`,
  `logits_weights` (the weights that make the logits) and `reaches_logits` (whether the image reaches them).
- `meta_trace`: a trace on the meta device, before there are any data.
- `watching`: a `Watching` passes the arguments and results of chosen calls to functions while the network computes;
  `activations.at_places` makes one for the inputs and outputs of activations.
- `samples`: inputs and outputs of layers at some positions of each image.
- `image_dependence`: which inputs of each weight, and which logits, depend on the image, by a pass of an image of NaN;
  `nan_mode` and `nan_rules` are what each operation makes of NaN, `unknown` the marks of bools and integers,
  `weight_inputs` who reads which weight.
- `macs`: multiply-accumulates of each layer; `peak`: the memory of the activations.
"""

from compressor.tracing.activations import MAKE_ZEROS, Place, at_places, places
from compressor.tracing.draws import draw, is_draw, python_drew, seed
from compressor.tracing.dropout import before_dropout
from compressor.tracing.image_dependence import CannotProbe, dependent_logits, inputs_by_weight, lost_classes, probe
from compressor.tracing.layer_calls import Layer, layer_calls
from compressor.tracing.logits import all_zero, logits_weights, reaches_logits
from compressor.tracing.macs import macs, macs_by_module
from compressor.tracing.meta_trace import OnMeta, expected_channels, trace_on_meta
from compressor.tracing.peak import peak_activations
from compressor.tracing.positions import positions
from compressor.tracing.samples import Batches, Samples, sample_inputs, sample_outputs
from compressor.tracing.trace import Trace, trace
from compressor.tracing.watching import Watching, watch
from compressor.tracing.weight_inputs import LayerInputs

__all__ = [
    "MAKE_ZEROS",
    "Batches",
    "CannotProbe",
    "Layer",
    "LayerInputs",
    "OnMeta",
    "Place",
    "Samples",
    "Trace",
    "Watching",
    "all_zero",
    "at_places",
    "before_dropout",
    "dependent_logits",
    "draw",
    "expected_channels",
    "inputs_by_weight",
    "is_draw",
    "layer_calls",
    "logits_weights",
    "lost_classes",
    "macs",
    "macs_by_module",
    "peak_activations",
    "places",
    "positions",
    "probe",
    "python_drew",
    "reaches_logits",
    "sample_inputs",
    "sample_outputs",
    "seed",
    "trace",
    "trace_on_meta",
    "watch",
]
