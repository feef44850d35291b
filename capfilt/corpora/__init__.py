"""Corpora built from packages: what the embedded model is trained on, and the bundled sample."""
