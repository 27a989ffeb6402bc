"""Commands that run and measure models."""
