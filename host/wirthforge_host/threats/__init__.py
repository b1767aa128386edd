"""Judges what is noticed about instances, raises alerts, and holds back whom the policy says to hold back."""
