"""From files on disk to training batches."""
