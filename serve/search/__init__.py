"""A search: from the query to the answer."""
