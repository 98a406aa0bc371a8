"""Data where it is: tables, frames and other people's storage, at both ends of a batch."""
