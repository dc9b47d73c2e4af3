"""Prompt tables and grammars: which prompts a corpus has, how often, and in which order."""
