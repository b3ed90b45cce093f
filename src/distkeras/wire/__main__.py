"""Runs one parameter server: see `distkeras.wire.serve`."""

from distkeras.wire.serve import main

main()
