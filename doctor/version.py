"""The version, apart from the package's door: reports name it, and must not import what imports them."""

__version__ = "0.1.0"
