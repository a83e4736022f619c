"""From a YAML file to policies bound to a model, with a line and a column for everything that is wrong."""
