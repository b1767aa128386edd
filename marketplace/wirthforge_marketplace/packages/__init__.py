"""Taking in signed packages, and what is known of each release."""
