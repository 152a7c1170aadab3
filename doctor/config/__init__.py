"""What LLaMA-Factory is told: options, files, patches."""
