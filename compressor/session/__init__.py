"""The session: one step of a run. It owns masks, substitutions, averages and memories, and the order of events."""
