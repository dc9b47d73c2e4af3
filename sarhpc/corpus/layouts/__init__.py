"""Layouts that a corpus can be exported to, one module each."""
