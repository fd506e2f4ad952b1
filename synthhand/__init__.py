"""synthhand: a hand, its cameras, its pictures, and the file formats of this field; NumPy, no torch.

`skeleton` and `pinhole` define the 21 joints and the camera, `model` the hand's body and its movement.
`render` draws it, `formats` reads and writes published file formats, and `dataset` writes whole datasets.
Later rooms import earlier ones only, and none imports `davae`.
"""
