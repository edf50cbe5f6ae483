"""Doubles: small, typed, and held to the same laws as the real parts."""
