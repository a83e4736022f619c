"""The networks, a kind of structure a file."""
