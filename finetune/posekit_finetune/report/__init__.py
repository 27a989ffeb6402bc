"""The report of an adaptation, as a page and as JSON."""
