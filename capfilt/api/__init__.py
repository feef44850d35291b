"""What Python users call beside the rooms' own classes: models by name, training, measuring, reading."""
