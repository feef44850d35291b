"""Where rows come from: tables, tars and folders, planned into parts and read part by part."""
