"""KMS: keeps master keys wrapped, so that only a process which the KMS permits gets them, once, at its start."""
