"""Version of the package; the metadata of the wheel reads it here."""

__version__ = "0.2.0"
