"""The tasks that show images: episodes cut from arrays; files found, checked and decoded once."""
