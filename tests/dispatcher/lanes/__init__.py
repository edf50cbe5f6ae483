"""The lanes of a worker, in memory and on a moved clock."""
