"""Many runs of one experiment: what varies, where they run, what resulted (paper 4.3, 4.4)."""
