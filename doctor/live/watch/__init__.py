"""A live view, alerts, metrics."""
