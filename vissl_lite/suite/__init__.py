"""Several evaluations on many weights, each done once, and one table of them all."""
