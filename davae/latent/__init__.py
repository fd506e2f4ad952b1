"""Latent codes by meaning: reading, changing and comparing them."""
