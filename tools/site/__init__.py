"""`make docs-site`: what the documentation needs to be a site."""
