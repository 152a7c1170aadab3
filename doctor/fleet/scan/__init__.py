"""Finding and analyzing many runs."""
