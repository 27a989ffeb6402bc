"""One coded stream: its packets, times, decoders and pixels."""
