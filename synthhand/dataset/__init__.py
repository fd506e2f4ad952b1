"""SynthHand, the embedded dataset: factors, scenes, and writers in the form of each published set."""

MANIFEST = "synthhand.json"  # in every folder that is rendered, whatever its form
