// Package auth has the guards that find out who a call is made for.
//
//	keys, err := auth.NewJWKS(auth.JWKSOptions{URL: "https://id.example.com/jwks.json"})
//	if err != nil { ... }
//	go keys.Run(ctx) // fetches, and follows the issuer's rotation
//	guard, err := auth.NewJWT(auth.JWTOptions{
//		Issuer:   "https://id.example.com",
//		Audience: []string{"edge"},
//		Keys:     keys,
//	})
//	if err != nil { ... }
//	srv := &router.Server{Guards: []protocols.Guard{guard}}
//
// A [JWT] takes a token from where its [Source] list says, checks it against
// [Keys], and identifies the call. What it has checked it remembers until the
// token ends, so that most calls cost a look into a map. An open gRPC call or
// WebSocket is ended when its token is.
//
// [MTLS], [APIKeys], [Tickets] and [Forward] find it out by other means; [Any] and [All] put guards
// together, and [Require] says who may, of those who are known. [Sessions] know what each identity has open,
// and move its end: their guard comes last.
//
// The rule: what a client learns of a refusal is that its credentials are
// missing, bad or cannot be checked now. Why, [JWT.Stats] counts.
//
// Tokens are signed (JWS, RFC 7515); encrypted ones (JWE) are refused. Only keys that the
// operator has named verify: what a token says of its own keys (jwk, jku, x5c, x5u) is
// not looked at.
package auth
