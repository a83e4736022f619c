"""What the commands call: read the files, build the parts, train, evaluate, report."""
