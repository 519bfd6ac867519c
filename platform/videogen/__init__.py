"""VideoGen (arXiv 2309.00398): reference-guided cascaded latent video diffusion, as a library that knows no cluster."""

__version__ = "0.1.0"
