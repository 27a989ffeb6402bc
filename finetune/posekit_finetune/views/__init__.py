"""Easy, hard and out-of-domain views of a person, and the warps between them."""
