"""The dialects that the demo provider speaks: each reads requests and writes the one answer."""
