"""One `Report`; table, CSV and JSON only format it."""
