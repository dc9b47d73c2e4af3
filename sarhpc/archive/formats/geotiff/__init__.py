"""GeoTIFF and COG rasters, and what their headers and names say of their content."""
