"""File formats of SAR products, each in one module or package that ends in its `FORMAT`."""
