"""The web app: your own photo, and a walk through the latent space; `python -m davae app`."""
