"""The parent of the training process."""
