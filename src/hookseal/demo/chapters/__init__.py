"""Chapters: each makes one promise of hookseal come true, and checks the result from outside."""
