"""Flow fields of instances, and instances of flow fields."""
