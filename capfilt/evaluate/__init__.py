"""Measures of captions and filters."""
