"""The pages of docs/ that are written from tables of the product, or from a run of its tests."""
