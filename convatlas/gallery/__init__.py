"""The gallery: pages, explorer data, diagrams and the single file, from results alone."""
