"""The service: CapFilt over HTTP, on Ray Serve or in one process."""
