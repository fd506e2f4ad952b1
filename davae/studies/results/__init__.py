"""Results as printed in the paper and as measured here."""
