// Package console shows a running port in a terminal, over its admin API: "oneport conns"
// is a table of connections, and ends them; "oneport top" is a view of all, drawn anew each
// second. Either takes a Client:
//
//	c, err := console.Dial("127.0.0.1:9901", "")
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	err = c.List(ctx, os.Stdout, console.Query{Filter: &adminv1.Filter{State: "active"}})
//
// Much of what is shown strangers have chosen: paths, names, addresses of theirs. All of it
// passes Clean, or for JSON escaped, so that no client can write to an operator's terminal.
package console
