"""Everything that follows a forward pass: which operations it has, on what, and with which values.

A module for each question; other rooms import from these:

- `trace`: `trace(model, images)` records the operations and module calls of one pass as a `Trace`. Functions of a
  `Trace` are `activations.places` (the activation behind each weight), `layer_calls.layer_calls` (the calls of each
  layer, the batch norm behind it, the shortcut added to it), `dropout.before_dropout` (the weight before each dropout
  module) and `positions.positions` (the number of positions at which each layer works).
- `rehearsal`: a trace on the meta device, before there are any data.
- `watching`: a `Watching` shows the arguments and results of chosen calls while the network computes;
  `activations.at_places` makes one that shows what goes into activations and comes out.
- `samples`: what layers read and give at some positions of each image.
- `liveness`: which channels depend on the image. `macs`: multiply-accumulates by layer.
"""
