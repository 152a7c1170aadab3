"""Healthy but nasty training curves, and everything that may stop or restart a run."""
