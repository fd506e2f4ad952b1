"""davae: 3D hand pose, shape and appearance from one RGB image, by a VAE with a latent space of named blocks.

An open reproduction of da-VAE (Guo, Xu, Lin, Sun and Ma, 2022, doi:10.1007/s10044-021-01048-x). Axis letters
used throughout: `b` batch, `j` = 21 joints, `p` points, `v` vertices, `c h w` image, `z` latent. The camera
frame is x right, y down, z forward. Names end in their unit (`joints_mm`, `uv_px`); a name without a unit is
normalised.
"""

__version__ = "0.2.0"
