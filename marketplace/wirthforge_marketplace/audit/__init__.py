"""Who did what, when: written in the transaction of the act itself, never changed afterwards."""
