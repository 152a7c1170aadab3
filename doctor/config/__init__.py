"""LLaMA-Factory configurations: options, files, fixes and patches."""
