"""From a stranger's photo to a crop of the hand, and back to its pixels."""
