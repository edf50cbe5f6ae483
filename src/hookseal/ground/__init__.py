"""The ground: identifiers, errors, time, logs, SQL texts and the wire. It knows no other room."""
