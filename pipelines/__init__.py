"""Ray pipelines: encoding, training, generation. They import `videogen`, which knows no cluster."""
