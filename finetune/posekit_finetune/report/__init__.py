"""The report of an adaptation: an HTML page, JSON, and the facts of the run."""
