"""GeoTIFF and COG rasters, and what their headers and names tell about their content."""
