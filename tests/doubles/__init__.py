"""Doubles: small, typed, and tested by the same tests as the real parts."""
