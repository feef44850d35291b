"""The units of work of the main job."""
