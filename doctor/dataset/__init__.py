"""The data sets of a configuration, read as LLaMA-Factory 0.9.5 reads them: structure, lengths in tokens, and what that means."""
