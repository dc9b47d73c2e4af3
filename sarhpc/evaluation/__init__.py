"""Evaluation: intervals, prompt conformity, report and inspection pages."""
