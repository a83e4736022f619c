"""Physical removal of channels: which may go, and everything that goes with them."""
