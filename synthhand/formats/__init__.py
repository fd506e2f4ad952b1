"""Safe readers and writers of this field's files: RHD, STB, FreiHAND, hand models, meshes."""
