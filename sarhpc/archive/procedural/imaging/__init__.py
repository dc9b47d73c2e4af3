"""How radar and camera see a procedural ground: geometry, texture, focusing, optical rendering."""
