"""One file for each format of a run folder."""
