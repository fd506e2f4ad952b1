"""synthhand: a hand, its cameras, its pictures, and the files of this field; NumPy, no torch.

`skeleton` and `pinhole` are the 21 joints and the camera; `model` is the hand's body and how it moves;
`render`
draws it; `formats` reads and writes what others publish; `dataset` writes whole datasets. Later ones import
earlier ones, and none imports `davae`.
"""
