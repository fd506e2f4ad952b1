"""The commands, one function each: parameters become options, the docstring becomes the help text.

They hold no logic of their own and import what they call, so that `--help` needs none of it.
"""
