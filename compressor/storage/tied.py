"""Tensors that have several names."""

from collections.abc import Mapping

from torch import Tensor


def first_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return by name the first name of the same tensor, which is mostly the name itself.

    Tensors are the same where they have the same memory, shape and strides; on the meta device where they are one
    object (a state dict with `keep_vars=True`).
    """
    seen: dict[object, str] = {}
    found = {}
    for name, tensor in tensors.items():
        begin = tensor.untyped_storage().data_ptr() or id(tensor)  # 0 where there is no memory: empty, or meta
        memory = (begin, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        found[name] = seen.setdefault(memory, name)
    return found
