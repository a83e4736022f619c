"""Learning-rate schedules as functions of the time alone."""
