"""Files of this field: RHD, STB and FreiHAND, hand models and meshes, and reading all of them safely."""
