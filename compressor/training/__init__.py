"""The training loop, what it saves, and the observers of a run."""

from compressor.training.class_meters import ClassMeters
from compressor.training.evaluation import autocast, evaluate
from compressor.training.initialization import initialize
from compressor.training.meters import Meters
from compressor.training.observers import LayersFile, LinesFile, LogFile, MetricsFile, Observer, Terminal, duration
from compressor.training.parts import fewest_at_once, part_sizes
from compressor.training.trackers import Status, Tracked, check_installed, track
from compressor.training.trainer import Progress, Trainer
from compressor.training.weights import Found, fit, load_weights, narrower_layers, read

__all__ = [
    "ClassMeters",
    "Found",
    "LayersFile",
    "LinesFile",
    "LogFile",
    "Meters",
    "MetricsFile",
    "Observer",
    "Progress",
    "Status",
    "Terminal",
    "Tracked",
    "Trainer",
    "autocast",
    "check_installed",
    "duration",
    "evaluate",
    "fewest_at_once",
    "fit",
    "initialize",
    "load_weights",
    "narrower_layers",
    "part_sizes",
    "read",
    "track",
]
