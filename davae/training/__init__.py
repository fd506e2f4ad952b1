"""The training loop and the folders it leaves behind."""
