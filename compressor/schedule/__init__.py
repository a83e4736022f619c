"""From a YAML file to policies that are bound to a model, with line and column of every fault."""
