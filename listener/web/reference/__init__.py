"""How the API is described: OpenAPI, AsyncAPI and the page at /docs."""
