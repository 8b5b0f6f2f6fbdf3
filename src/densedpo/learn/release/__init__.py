"""A finished adapter in the formats of others, with its model card."""
