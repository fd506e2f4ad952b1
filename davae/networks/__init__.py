"""The networks of paper section 3.2."""
