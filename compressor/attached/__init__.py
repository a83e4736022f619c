"""A schedule attached to a model and an optimizer in a loop of the user's own: no configuration, no folder of a run."""

from compressor.attached.building import attach
from compressor.attached.session import AttachedSession, LossComponent, PolicyLoss

__all__ = ["AttachedSession", "LossComponent", "PolicyLoss", "attach"]
