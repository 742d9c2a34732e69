"""Image tasks: files are found, checked and decoded once; episodes are cut from arrays."""
