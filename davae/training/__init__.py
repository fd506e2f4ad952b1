"""Training: one loop, a task for each network, and the folder of a run."""
