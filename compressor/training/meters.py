"""Loss and accuracy, summed over batches."""

import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.world import World


class Meters:
    """Sums of loss, top-1 and top-5 hits over samples; the sums stay on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)
        self._count = 0

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, loss: Tensor | None = None) -> None:
        """Count one batch; `loss` is its mean loss, by default the cross-entropy."""
        if loss is None:
            loss = F.cross_entropy(logits.float(), labels)
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        hits = torch.stack([loss.detach().double() * len(labels), top[:, 0].sum().double(), top.sum().double()])
        self._sums += hits
        self._count += len(labels)

    def take(self, sums: Tensor, count: int) -> None:
        """Count `count` images by the sums of their loss, their top-1 and their top-5 hits."""
        self._sums += sums
        self._count += count

    @property
    def sums(self) -> Tensor:
        """Return the sums of loss, top-1 and top-5 hits, float64 [3]."""
        return self._sums

    def gather(self, world: World) -> None:
        """Add what the other processes have counted, on each of them."""
        self._sums = world.sum(self._sums)
        self._count = int(world.sum(torch.tensor(self._count)))

    def means(self) -> dict[str, float]:
        """Return `loss`, and `top1` and `top5` in percent; empty where nothing was counted."""
        if not self._count:
            return {}
        loss, top1, top5 = (self._sums / self._count).tolist()
        return {"loss": loss, "top1": 100 * top1, "top5": 100 * top5}

    def state_dict(self) -> dict[str, object]:
        """Return the sums and the count."""
        return {"sums": self._sums.cpu(), "count": self._count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Load saved sums."""
        sums, count = state["sums"], state["count"]
        assert isinstance(sums, Tensor)
        assert isinstance(count, int)
        self._sums.copy_(sums)
        self._count = count
