"""Code that several model families share: adapters, preprocessing, weights, captions."""
