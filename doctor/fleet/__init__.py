"""Many runs: what is similar, what changed."""
