"""Physical removal of channels: which can be removed, and all tensors that change with them."""
