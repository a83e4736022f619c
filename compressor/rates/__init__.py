"""How much, as a pure function of integers: the window, and the rates over it."""
