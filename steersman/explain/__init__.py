"""What backpropagation does, shown: circuits, gate by gate."""
