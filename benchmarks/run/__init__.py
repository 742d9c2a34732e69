"""A run: profiles, cells, processes, trainings and tests."""
