"""From texts to unit vectors, and from a vector to its nearest neighbours."""
