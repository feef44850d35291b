"""The command line: parses, calls the room below, prints."""
