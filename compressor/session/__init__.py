"""The step of a run: the session owns masks, substitutions, averages and memories, and the order of what happens."""
