"""Labelled images: how they are read, split, fed, normalized and augmented."""

from compressor.data.expected import expected_steps, misfits
from compressor.data.feed import DataFeed
from compressor.data.images import DataSet, Images
from compressor.data.loading import load
from compressor.data.memory import fits
from compressor.data.pipeline import augment, prepare
from compressor.data.registry import catalogue, class_count, image_shape, training_images
from compressor.data.smoke import SmokeFeed, random_set
from compressor.data.splitting import split

__all__ = [
    "DataFeed",
    "DataSet",
    "Images",
    "SmokeFeed",
    "augment",
    "catalogue",
    "class_count",
    "expected_steps",
    "fits",
    "image_shape",
    "load",
    "misfits",
    "prepare",
    "random_set",
    "split",
    "training_images",
]
