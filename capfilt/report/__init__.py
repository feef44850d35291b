"""What happened in a run, as one HTML file that opens from disk and loads nothing."""
