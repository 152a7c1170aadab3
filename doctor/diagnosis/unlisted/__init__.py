"""What can be said of an exception that no rule explains."""
