"""Learning-rate schedules as functions of the time alone."""

from compressor.learning_rates.schedulers import LRScheduler, PureScheduler, ReduceLROnPlateau, rates_at

__all__ = ["LRScheduler", "PureScheduler", "ReduceLROnPlateau", "rates_at"]
