"""Time in whole numbers: the clock of a run, and the windows in which policies are active."""
