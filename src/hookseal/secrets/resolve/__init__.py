"""From a pointer to what signs: checked, read, and cached for a while."""
