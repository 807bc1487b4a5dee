package auth_test

import (
	"context"
	"fmt"
	"time"

	"github.com/oneport-edge/oneport/router/auth"
)

// A guard, and a token that it lets in. In production the keys are a JWKS.
func ExampleNewJWT() {
	key, err := auth.GenerateKey("ES256")
	if err != nil {
		fmt.Println(err)
		return
	}
	mint, err := auth.NewMint(key, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, err := auth.NewKeySet(mint.Key())
	if err != nil {
		fmt.Println(err)
		return
	}
	guard, err := auth.NewJWT(auth.JWTOptions{Issuer: "https://id.example.com", Audience: []string{"edge"}, Keys: keys})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, issuer := range []string{"https://id.example.com", "https://evil.example.com"} {
		token, err := mint.Sign(map[string]any{"iss": issuer, "aud": "edge", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()})
		if err != nil {
			fmt.Println(err)
			return
		}
		id, err := guard.Check(context.Background(), token)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("this is", id.Subject)
	}
	// Output:
	// this is alice
	// token refused: issuer
}
