"""How far an exported file deviates from the source network: measured, checked, reported."""
