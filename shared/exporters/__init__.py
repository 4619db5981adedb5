"""Write predictions as the files that people and other programs open."""
