"""Compiles a config's programs for hardware that is not there, and says what they would cost."""
