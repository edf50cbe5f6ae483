"""The files of deploy/ pass linters, match the product, and are run as written where no container is needed."""
