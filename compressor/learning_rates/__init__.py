"""Learning rates as pure functions of time."""
