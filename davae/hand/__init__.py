"""The hand itself: rigs, skinning and rendering."""
