package edge

// KeyOf is keyOf, for tests.
func KeyOf(field string) string { return keyOf(field) }
