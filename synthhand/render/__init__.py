"""Pictures of a hand: skin, light, backgrounds, ray casting."""
