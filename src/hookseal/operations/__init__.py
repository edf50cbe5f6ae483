"""Operations: what an operator does across both rooms, each in one transaction."""
