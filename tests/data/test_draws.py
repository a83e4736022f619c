"""The published SplitMix64, and what makes it a source of independent draws."""

import numpy as np
import torch

from compressor.data.draws import draw


def test_without_a_key_it_is_splitmix64_seeded_with_0() -> None:
    # The reference implementation's first outputs (https://prng.di.unimi.it/splitmix64.c, x = 0).
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert draw(torch.arange(4)).tolist() == expected


def test_a_draw_depends_on_its_index_alone() -> None:
    everything = draw(torch.arange(100), 1, 2, 3)
    chosen = torch.tensor([99, 0, 50, 50])
    assert draw(chosen, 1, 2, 3).tolist() == everything[chosen.numpy()].tolist()


def test_every_part_of_the_key_counts() -> None:
    indices = torch.arange(50)
    draws = [draw(indices, *key) for key in ((0,), (1,), (0, 0), (0, 1), (1, 0), (0, 2**31 - 1), (2**31 - 1, 0))]
    assert len(set(np.concatenate(draws).tolist())) == 50 * len(draws)


def test_bits_are_balanced() -> None:
    bits = draw(torch.arange(20_000), 7, 7)
    for position in range(64):
        ones = int((bits >> np.uint64(position) & np.uint64(1)).sum())
        assert abs(ones - 10_000) < 5 * 71  # 5 standard deviations of sqrt(20000) / 2
