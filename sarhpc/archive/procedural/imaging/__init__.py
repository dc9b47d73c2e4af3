"""How radar and camera see a procedural ground: geometry, texture, optical rendering."""
