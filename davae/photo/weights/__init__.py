"""The weights that come with davae: `hand.safetensors`, and README.md, its model card."""
