"""Other models in the roles of captioner and filter."""
