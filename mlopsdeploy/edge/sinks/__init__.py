"""Outputs of `edge`, a file each; see `outputs.Sink`. An outside package adds one likewise."""
