"""Every component on a CUDA device; without one a few of the same functions are tried on the CPU."""

import on_device
import pytest
import torch

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
needs_cuda = pytest.mark.skipif(not CUDA, reason="there is no CUDA device")
FEW = ("pruners.AutomatedGradualPruner", "gates.HardConcreteL0")
"""Those that are tried where there is no CUDA device."""


@pytest.mark.parametrize("key", on_device.COMPONENTS if CUDA else FEW)
def test_a_component_is_on_the_device_and_resumes_with_the_same_bits(key: str) -> None:
    on_device.is_placed_and_resumes(key, DEVICE)


@needs_cuda
@pytest.mark.parametrize("key", on_device.COMPONENTS)
def test_a_step_is_taken_and_told_where_it_waits(key: str) -> None:
    on_device.waits(key, DEVICE)


@pytest.mark.parametrize("name", on_device.SETTINGS if CUDA else ["bf16", "channels_last"])
def test_masked_weights_stay_zero_under_a_setting(name: str) -> None:
    on_device.keeps_zeros(name, DEVICE)


def test_control_what_is_elsewhere_is_found() -> None:
    run = on_device.Rig(on_device.schedule(FEW[0]), until=(1, 1))
    run.run()
    with pytest.raises(AssertionError, match=r"not on meta: conv1.weight"):
        on_device._placed(run, torch.device("meta"))
