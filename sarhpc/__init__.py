"""From an airborne SAR archive to a text-to-SAR generator and its synthetic corpora."""

__version__ = "0.1.0"
