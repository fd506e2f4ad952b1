"""The web app: your own photo, and the latent explorer; `python -m davae app`."""
