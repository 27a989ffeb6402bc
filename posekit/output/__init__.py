"""What a run leaves: the files of a source, images drawn on, pages."""
