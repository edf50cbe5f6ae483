"""What deploy/ holds is linted, agrees with the product, and is run as written wherever no container is needed."""
