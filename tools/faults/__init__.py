"""`make test-faults`: the long form of the fault suite, and its records."""
