"""Zeros: which weights there are, which are kept, how many are zero."""
