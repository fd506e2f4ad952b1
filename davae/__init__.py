"""davae: 3D hand pose, shape and appearance from one RGB image, by a VAE whose latent space has meaning.

An open reproduction of da-VAE (Guo, Xu, Lin, Sun and Ma, 2022). Axis letters used throughout: `b` batch,
`j` = 21 joints, `p` points, `v` vertices, `c h w` image, `z` latent. The camera frame is x right, y down,
z forward; names end in their unit (`joints_mm`, `uv_px`), and a name without one is normalised.
"""

__version__ = "0.2.0"
