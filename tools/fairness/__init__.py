"""A fleet of workers in memory, on a moved clock, with the lanes of the product."""
