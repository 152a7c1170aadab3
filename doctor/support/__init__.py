"""General tools that know nothing of training."""
