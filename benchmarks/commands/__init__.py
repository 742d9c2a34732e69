"""The commands, the options they share, and their output."""
