"""The generator SplitMix64."""

import numpy as np

from compressor.splitmix import splitmix64


def test_the_generator_gives_the_published_numbers() -> None:
    # Of the seed 1234567, as Rosetta Code and the author's splitmix64.c have them.
    expected = [
        *[6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    ]
    found = splitmix64(np.array([1234567], np.uint64), np.arange(5, dtype=np.uint64))
    assert found.tolist() == expected
    assert int(splitmix64(np.array([1234567], np.uint64), np.array([3], np.uint64))[0]) == expected[3]
