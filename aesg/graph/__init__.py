"""The graph of concepts and the rules by which it organises itself."""
