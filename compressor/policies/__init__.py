"""WHEN and HOW components act on a run: one policy in each file."""
