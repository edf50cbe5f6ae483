"""Lanes: how many requests each endpoint may have in flight, and whose turn it is. Pure: time is passed in."""
