"""The public keys that publishers sign their packages with."""
