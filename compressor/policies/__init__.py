"""How a component meets the loop: one policy a file."""
