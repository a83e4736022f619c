"""Labelled images: how they are read, split, fed, normalized and augmented."""

from compressor.data.images import DataSet, Images
from compressor.data.loading import load
from compressor.data.pipeline import augment, prepare
from compressor.data.registry import catalogue, class_count, image_shape, training_images
from compressor.data.splitting import split

__all__ = [
    "DataSet",
    "Images",
    "augment",
    "catalogue",
    "class_count",
    "image_shape",
    "load",
    "prepare",
    "split",
    "training_images",
]
