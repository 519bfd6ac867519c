"""Networks that several stages share, in diffusers' `ModelMixin`/`ConfigMixin` form, and the loading of components."""
