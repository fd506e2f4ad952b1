"""The hand itself: its anatomy, rig, poses and proportions."""

VIEWPOINTS = ("sphere", "frontal")  # of `pose.sample_orientation`; here, since the command line needs no more
FLESH = ("realistic", "wide")  # of `synthhand.dataset.flesh`, likewise
WORLD = ("framing", "held", "camera", "detail", "company", "worn")  # of `synthhand.dataset.world`, likewise
PHOTOGRAPHS = "photographs"  # all of them
