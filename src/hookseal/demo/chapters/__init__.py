"""Chapters: each brings about one thing that hookseal promises, and judges from outside whether it came true."""
