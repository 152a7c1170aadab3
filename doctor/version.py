"""The version: the package metadata is built from this file (pyproject.toml), and reports name it."""

__version__ = "0.1.0"
