"""The HTTP side: routes, schemas, errors, limits. Knows no model library."""
