"""The one catalogue of texts that users read."""
