"""Other people's libraries: how their neurons are recognised and called. Each is imported once a model needs it."""
