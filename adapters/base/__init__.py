"""What several families of models share: adapters, preprocessing, weights, captions."""
