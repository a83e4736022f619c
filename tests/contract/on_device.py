"""What holds of each component on a CUDA device: plain functions, for `make gpu`, where pytest may be missing.

`test_on_device.py` has the same as tests. Here, on a machine without a GPU, they are tried on the CPU.
"""

import warnings
from typing import Any

import torch
from rig import RARELY, Rig, all_components, difference, resumed, windowed
from torch import Tensor

COMPONENTS = all_components()
HALFWAY, UNTIL = (2, 2), (3, 0)
"""Within the window of every example, and the end of the epoch."""
MASKED = "pruners.AutomatedGradualPruner"


def schedule(key: str) -> str:
    """The example of a component, in epochs 1, 2 and 3."""
    return windowed(COMPONENTS[key].example)


def is_placed_and_resumes(key: str, device: torch.device) -> None:
    """Raise where a tensor of a run is not on the device, or a run that is resumed there has other bits."""
    whole = Rig(schedule(key), until=UNTIL, checkpoint=RARELY, device=device)
    whole.run()
    _placed(whole, device)
    half = Rig(schedule(key), until=HALFWAY, checkpoint=RARELY, device=device)
    half.run()
    again = resumed(schedule(key), half.at(HALFWAY), UNTIL, device=device)
    found = difference(again.snapshots[UNTIL], whole.snapshots[UNTIL])
    assert found is None, f"{key}: resumed, it differs: {found}"


def _placed(run: Rig, device: torch.device) -> None:
    """Raise where a parameter, a mask or a tensor of the optimizer's state is elsewhere; a count of steps may be."""
    found: dict[str, Tensor] = dict(run.model.state_dict())
    for name, _ in run.model.named_parameters():
        keep = run.masks.keep(name)
        if keep is not None:
            found[f"the mask of {name}"] = keep
    for number, state in enumerate(run.trainer.state_dict()["optimizer"]["state"].values()):
        found |= {f"{key} of parameter {number}": value for key, value in state.items() if torch.is_tensor(value)}
    wrong = [name for name, tensor in found.items() if tensor.dim() and tensor.device.type != device.type]
    assert not wrong, f"not on {device}: {', '.join(wrong)}"


def waits(key: str, device: torch.device) -> list[str]:
    """Where a plain step waits for the device; nothing on the CPU, which has nothing to wait for."""
    run = Rig(schedule(key), until=HALFWAY, checkpoint=RARELY, device=device)
    run.run()
    images, labels = torch.randn(8, 1, 12, 12).to(device), torch.randint(0, 5, (8,)).to(device)
    if device.type != "cuda":
        run.trainer.step(images, labels)
        return []
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run.trainer.step(images, labels)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sorted({f"{one.filename}:{one.lineno}" for one in found if "synchroniz" in str(one.message)})


SETTINGS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "bf16, channels_last, compile": {"precision": "bf16", "channels_last": True, "compile": True},
}


def keeps_zeros(name: str, device: torch.device) -> None:
    """Raise where masked weights do not stay zero under a setting, or the loss is not finite."""
    run = Rig(schedule(MASKED), until=UNTIL, checkpoint=RARELY, device=device, **SETTINGS[name])
    if SETTINGS[name].get("channels_last"):
        run.model.to(memory_format=torch.channels_last)
    run.run()  # raises where the loss is not finite
    for weight, parameter in run.model.named_parameters():
        keep = run.masks.keep(weight)
        if keep is not None:
            masked = parameter.detach()[~keep]
            assert len(masked), f"{weight} is not masked"
            assert not masked.any(), f"{weight} has masked weights that are not 0 under {name}"
        if SETTINGS[name].get("channels_last") and parameter.dim() == 4 and parameter.shape[1] > 1:
            kept = parameter.is_contiguous(memory_format=torch.channels_last)
            assert kept, f"{weight} is no longer channels_last"
