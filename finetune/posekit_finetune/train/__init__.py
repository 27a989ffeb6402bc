"""Teachers, losses, the step of the method and the loop around it."""
