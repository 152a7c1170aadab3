"""From the root cause to one patch."""
