"""`make bench`: what a delivery costs, beside what it costs elsewhere, in one run on one machine."""
