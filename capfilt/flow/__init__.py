"""Plans, and the two ways to run them: in this process and on Ray."""
