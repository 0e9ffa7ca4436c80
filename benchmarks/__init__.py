"""One file per claim of speed, with its peer measured in the same run. `make bench` runs them all."""
