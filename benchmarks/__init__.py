"""One file per claim of speed, with a peer measured in the same run. `make bench` runs all."""
