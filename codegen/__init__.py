"""From the typed graph to source files: plan, templates, folder."""
