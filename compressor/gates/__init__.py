"""Gates: weights that are random or shared while they are trained, one in each file."""
