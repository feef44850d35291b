"""Jobs: data sets made by the service, kept in a database that outlives it."""
