"""WHICH weights are pruned: one criterion a file."""
