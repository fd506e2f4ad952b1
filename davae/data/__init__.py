"""Datasets on disk, the arrays prepared from them, and training batches."""
