"""Safe asynchronous HTTP: pictures from strangers' servers, within bounds and with manners."""
