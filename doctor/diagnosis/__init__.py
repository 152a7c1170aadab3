"""From events to root causes."""
