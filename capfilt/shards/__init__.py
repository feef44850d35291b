"""Formats of the output, reading them back, and the commit of a part."""
