"""The service's own page: jobs, their submission, their reports, and a picture tried at once."""
