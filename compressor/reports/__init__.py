"""The report of a network, and its forms: table, CSV and JSON."""
