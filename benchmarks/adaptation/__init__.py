"""What adaptation gains, what it costs, and whether its gate is right."""
