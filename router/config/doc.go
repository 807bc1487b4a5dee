// Package config reads oneport.yaml: strictly, into values that need no further
// checks of their own.
//
//	c, err := config.Load("oneport.yaml")
//	if err != nil {
//		fmt.Fprintln(os.Stderr, err) // every problem, with its line and a caret
//		os.Exit(1)
//	}
//	for _, w := range c.Warnings {
//		fmt.Fprintln(os.Stderr, "warning:", w.Error())
//	}
//
// The one rule: nothing in a file is ever ignored. A key that nobody knows is an
// error with a suggestion, and so is one that is given twice. All problems are
// reported at once, in the file's order, with line, column and path.
//
// Values come as the caller needs them: durations and prefixes are parsed, paths
// are absolute (relative ones are relative to the file), ${NAME} is replaced from
// the environment, defaults are filled in. What each key means is in
// keys.go, from which Schema and the reference in docs/configuration.md are made.
//
// The limits: a file has at most 1 MiB and one document, and no anchors or
// aliases, for a file that a reader must expand in the head hides mistakes. Files
// that it names are not opened here, and no address is resolved or dialed.
package config
