"""Workloads: programs that say who they are by a JWT that their platform signed, and no secret."""
