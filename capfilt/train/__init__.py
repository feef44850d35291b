"""Training of the MED on shards."""
