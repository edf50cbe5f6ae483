"""The gates themselves are tested here, and the shape of the house is."""
