"""Several worker processes under one parent: `hookseal worker --processes N`."""
