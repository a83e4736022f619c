"""Labelled images: how they are read, split, fed, normalized and augmented."""

from compressor.data.expected import augment_misfits, expected_images, expected_steps, misfits, steps_of
from compressor.data.feed import DataFeed
from compressor.data.fingerprinting import Fingerprint, differences, fingerprint
from compressor.data.images import DataSet, Images
from compressor.data.loading import load
from compressor.data.memory import fits
from compressor.data.pipeline import augment, prepare
from compressor.data.registry import catalogue, class_count, image_shape, training_images
from compressor.data.smoke import SmokeFeed, random_set
from compressor.data.splitting import split
from compressor.data.surveying import Survey, survey

__all__ = [
    "DataFeed",
    "DataSet",
    "Fingerprint",
    "Images",
    "SmokeFeed",
    "Survey",
    "augment",
    "augment_misfits",
    "catalogue",
    "class_count",
    "differences",
    "expected_images",
    "expected_steps",
    "fingerprint",
    "fits",
    "image_shape",
    "load",
    "misfits",
    "prepare",
    "random_set",
    "split",
    "steps_of",
    "survey",
    "training_images",
]
