"""The report as plain data."""
