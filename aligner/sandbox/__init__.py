"""Templates that strangers wrote, within limits: what they do is paid for, of what one rendering may take."""
