"""Random numbers of a session, apart from those of the loop around it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


class Draws:
    """The state of torch's generators for the events of a session: a loop that draws more, or less, changes nothing."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._bits = {"cpu": torch.Generator().manual_seed(seed).get_state()}

    @contextmanager
    def drawing(self, device: torch.device) -> Iterator[None]:
        """Let torch draw the session's numbers inside the block; afterwards those of the loop."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self._bits["cpu"])
        there = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        if there is not None:
            fresh = self._bits.get("cuda")
            torch.cuda.set_rng_state(self._first(device) if fresh is None else fresh, device)
        try:
            yield
        finally:
            self._bits["cpu"] = torch.get_rng_state()
            torch.set_rng_state(outside)
            if there is not None:
                self._bits["cuda"] = torch.cuda.get_rng_state(device)
                torch.cuda.set_rng_state(there, device)

    def _first(self, device: torch.device) -> torch.Tensor:
        return torch.Generator(device).manual_seed(self._seed).get_state()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generators."""
        return dict(self._bits)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with saved states."""
        self._bits = {"cpu": state["cpu"].cpu(), **{device: bits.cpu() for device, bits in state.items()}}
