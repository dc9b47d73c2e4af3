"""What a SAR makes of mean backscatter: complex speckle, points, noise, impulse response."""
