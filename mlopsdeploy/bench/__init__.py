"""How fast: what the benches of the strategies, `choose` and `package --measure` share."""
