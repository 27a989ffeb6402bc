"""The network in float16, bfloat16 or int8."""
