"""Small networks, each with one structure that users bring, and what thinning must make of it."""
