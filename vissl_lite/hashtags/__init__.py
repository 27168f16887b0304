"""Hashtags: from captions to a vocabulary of classes (docs/hashtags.md)."""
