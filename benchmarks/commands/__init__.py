"""What the command line prints, and the options that its commands share."""
