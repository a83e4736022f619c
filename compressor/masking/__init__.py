"""From a pruner to the masks of a network: what the policies that prune share, and what depends on a run's parts."""
