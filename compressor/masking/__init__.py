"""From a pruner to the masks of a network, for the policies that prune."""
