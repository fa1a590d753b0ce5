"""A cleaning as work: batches of records, the processes that clean them, one result of all parts."""
