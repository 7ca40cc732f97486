"""Deploy: which version answers where, how a new one takes over step by step, and how it is taken back."""
