"""What a policy sees of a run: the network, the optimizer, the data, and what it leaves for the report."""
