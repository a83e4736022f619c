"""How many entries of a tensor are not zero."""

import numpy as np
import torch
from torch import Tensor


def count_nonzero(tensor: Tensor) -> int:
    """The number of non-zero entries (NaN is one).

    On a CPU by NumPy's comparison and its count of booleans: torch's own takes a branch an element, eight times slower
    where zeros are scattered.
    """
    tensor = tensor.detach()
    if tensor.device.type != "cpu" or tensor.dtype == torch.bfloat16:
        return int(tensor.count_nonzero())
    values = tensor.numpy()
    return int(np.count_nonzero(values if values.dtype == np.bool_ else values != 0))
