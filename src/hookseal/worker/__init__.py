"""Worker: what runs. It opens the parts, answers the bell, sweeps and reports its health."""
