"""What the product costs, each figure beside a named peer's in the same run: ``python -m bench``."""
