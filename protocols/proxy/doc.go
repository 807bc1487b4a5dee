// Package proxy hands HTTP requests on to a server that speaks HTTP/1.1, and its
// answers back, whatever version of HTTP the client speaks.
//
//	c := proxy.New(proxy.Config{Dial: dial})
//	defer c.Close()
//	...
//	x := proxy.FromHTTP(w, r) // or an *h2.Exchange
//	err := c.Do(r.Context(), x)
//
// The rule: Do answers with what the server says, and never in its own words. A
// request that has no answer yet when Do returns is the caller's to answer, or
// to try elsewhere; what the error says decides (see [Error]).
//
// The caller's goroutine writes the request and reads the answer itself, on a
// connection that it has alone for that time: no connection has a goroutine of
// its own. A second one runs only while a body is sent that is not small. An idle
// connection holds no buffer, and one that the server has closed is found out
// before it is used.
//
// What servers send is read strictly, within a budget: RFC 9112 is meant
// wherever a section is named without another. An answer that is cut off never
// looks whole to the client.
//
// Where to look: exchange.go is what a client's side must do, http.go does it
// for net/http, client.go has the connections, do.go the life of a request,
// request.go and upload.go what is sent, answer.go and body.go what comes back,
// parse.go and chunked.go the grammar, sweep.go all timeouts.
package proxy
