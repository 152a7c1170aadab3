"""One file for each word under `when:`."""
