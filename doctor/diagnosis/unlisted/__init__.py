"""Failures that no rule lists: what their structure says, what their message advises, and how they are told."""
