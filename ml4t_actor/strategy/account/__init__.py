"""What the hard limits are held against: equity, exposure, and what entries on their way reserve."""
