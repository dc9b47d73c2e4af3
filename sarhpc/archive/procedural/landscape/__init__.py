"""The ground of a procedural scene: terrain, land cover, buildings, trees and reflectors."""
