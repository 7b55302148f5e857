"""Subnets of the recipes' supernets against the same networks trained alone, on all images of Fashion-MNIST."""
