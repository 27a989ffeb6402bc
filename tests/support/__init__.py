"""What tests share: inputs, figures, processes, and what they need."""
