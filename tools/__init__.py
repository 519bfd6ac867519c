"""Development tools: the generated reference and the navigation of the documentation site."""
