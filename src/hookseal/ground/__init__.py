"""Ground: identifiers, errors, time, logs, SQL files and the wire format. It imports no other package of hookseal."""
