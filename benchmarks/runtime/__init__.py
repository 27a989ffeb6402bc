"""Speed and memory of running a model, alone and beside other libraries."""
