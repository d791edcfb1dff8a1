"""A seeded random schedule of faults against whole gateways, and the books checked to the unit."""
