"""From nothing to figures: stages, notebooks and the command line."""
