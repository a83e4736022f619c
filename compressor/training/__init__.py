"""The training loop, what it saves, and the observers of a run."""
