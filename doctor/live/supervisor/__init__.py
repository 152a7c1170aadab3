"""What runs beside the training process."""
