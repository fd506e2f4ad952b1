"""The hand itself: its anatomy, rig, poses and proportions."""
