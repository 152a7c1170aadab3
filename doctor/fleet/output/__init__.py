"""Tables and pages about many runs."""
