"""The loop, what it saves and who watches it."""
