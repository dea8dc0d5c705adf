"""Points in the plane: a trained model, generated points, their scores, their table."""
